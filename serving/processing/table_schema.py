"""The columns of a row and the fields of an answer, as OpenAPI objects in YAML declare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from crossfade.runtimes.core.errors import InvalidArgument, escape

TYPES: Final = ("string", "number", "integer", "boolean")
_MAX_BYTES: Final = 4 << 20
# All as text: a column may be called 'yes', and an example be '1e3'.
_TextLoader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        type: one of ``TYPES``; of an array, that of its items.
        array: a row holds a list.
        nullable: a row may have null.
        required: a row must have it, if only as null.
        example: as it stands in the file.
    """

    name: str
    type: str
    array: bool = False
    nullable: bool = False
    required: bool = False
    example: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of an answer; ``classes`` are the words that an array of strings may hold."""

    name: str
    array: bool
    classes: Sequence[str] = ()


def columns(path: Path) -> list[Column]:
    """Reads the columns, in their order; none without the file.

    Raises:
        InvalidArgument: the file cannot be read, is no OpenAPI object, or has a column of a type
            that no row is packed with.
    """
    document, properties = _read(path)
    required = document.get("required")
    needed = frozenset(required if isinstance(required, list) else ())
    examples = document.get("example")
    examples = examples if isinstance(examples, dict) else {}
    found = []
    for name, declared in properties.items():
        kind = declared.get("type", "string")
        is_array = kind == "array"
        if is_array:
            items = declared.get("items")
            kind = items.get("type", "string") if isinstance(items, dict) else "string"
        if kind not in TYPES:
            raise InvalidArgument(
                f"{path.name}: column '{escape(name)}' is of type '{escape(str(kind))}'; there are"
                f" {', '.join(TYPES)} and arrays of them"
            )
        example = declared.get("example", examples.get(name))
        found.append(
            Column(
                name,
                kind,
                is_array,
                declared.get("nullable") == "true",
                name in needed,
                example if isinstance(example, str) else None,
            )
        )
    return found


def fields(path: Path) -> list[Field]:
    """Reads the fields of an answer, in their order; none without the file; raises as ``columns``.

    The classes are those of ``items: {enum: …}``.
    """
    _, properties = _read(path)
    found = []
    for name, declared in properties.items():
        items = declared.get("items")
        words = items.get("enum") if isinstance(items, dict) else None
        classes = [w for w in words if isinstance(w, str)] if isinstance(words, list) else []
        found.append(Field(name, declared.get("type") == "array", tuple(classes)))
    return found


def _read(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """The object and its properties; empty without the file."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        raise InvalidArgument(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{path.name} has more than {_MAX_BYTES} bytes")
    try:
        document = yaml.load(content, _TextLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        document = None
    properties = document.get("properties") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(properties, dict):
        raise InvalidArgument(f"{path.name} is no OpenAPI object with properties")
    named = {str(k): v if isinstance(v, dict) else {} for k, v in properties.items()}
    return document, named
