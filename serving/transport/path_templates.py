"""The paths that a route's pattern matches, as OpenAPI writes them: ``/models/{model}``."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_NAMED: Final = re.compile(r"\?P<(\w+)>")


class Template(NamedTuple):
    """One form of a path.

    Attributes:
        path: with the names of its parts in braces.
        parts: what each of them is, as a regular expression.
    """

    path: str
    parts: dict[str, str]


def templates(pattern: str) -> list[Template]:
    """Writes out each form that the optional parts of ``pattern`` allow, the shortest first.

    Args:
        pattern: literal characters, named groups, and optional groups, which may hold
            alternatives; what else regular expressions have is not understood.

    Raises:
        ValueError: it has something else.
    """
    forms = [Template("", {})]
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "(":
            end = _closing(pattern, position)
            choices = _group(pattern[position + 1 : end])
            position = end + 1
        elif character == "\\" and not pattern[position + 1].isalnum():
            choices = [Template(pattern[position + 1], {})]
            position += 2
        elif character in r"\.*+?[]{}|^$)":
            raise ValueError(f"no path template: {pattern}")
        else:
            choices = [Template(character, {})]
            position += 1
        if pattern[position : position + 1] == "?":
            choices.insert(0, Template("", {}))
            position += 1
        forms = [
            Template(form.path + choice.path, form.parts | choice.parts)
            for form in forms
            for choice in choices
        ]
    return forms


def _group(inner: str) -> list[Template]:
    if named := _NAMED.match(inner):
        return [Template(f"{{{named[1]}}}", {named[1]: inner[named.end() :]})]
    if not inner.startswith("?:"):
        raise ValueError(f"no path template: ({inner})")
    return [form for choice in _alternatives(inner[2:]) for form in templates(choice)]


def _alternatives(text: str) -> list[str]:
    """Cuts at every ``|`` that is in no group."""
    found, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "|" and not depth:
            found.append("")
        else:
            found[-1] += character
    return found


def _closing(pattern: str, opening: int) -> int:
    depth = 0
    for position in range(opening, len(pattern)):
        depth += (pattern[position] == "(") - (pattern[position] == ")")
        if not depth:
            return position
    raise ValueError(f"no path template: {pattern}")
