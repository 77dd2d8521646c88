"""A runtime's options: what ``artifact.options`` may hold, checked once, at load."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import pydantic

from crossfade.runtimes.core.errors import LoadFailed


class Options(pydantic.BaseModel):
    """Base of every runtime's options: frozen, strict, unknown keys are errors."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def read(cls, values: Mapping[str, Any], what: str = "option") -> Self:
        """Checks ``values``; ``what`` names their source in messages.

        Raises:
            LoadFailed: one message for all faults; an unknown key names the nearest right one.
        """
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            raise LoadFailed(explain(error, cls, what)) from error


def explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel], what: str) -> str:
    """Says all that is wrong in one line, and the nearest right key for each unknown one.

    Args:
        error: what validating ``model`` raised.
        model: the model that was validated.
        what: what its keys are called in messages (``option``, ``key``).
    """
    faults = error.errors()
    # Of a list whose parts are wrong pydantic says, too, that what is left is too short.
    return "; ".join(
        _fault(one, model, what)
        for one in faults
        if one["type"] != "too_short" or not any(_is_within(other, one) for other in faults)
    )


def _is_within(inner: Any, outer: Any) -> bool:
    place = outer["loc"]
    return len(inner["loc"]) > len(place) and inner["loc"][: len(place)] == place


def _fault(fault: Any, model: type[pydantic.BaseModel], what: str) -> str:
    parts, section, below = _place(model, fault["loc"])
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        key = fault["ctx"]["discriminator"].strip("'")
        kinds = [str(word) for one in below for word in _words(one.model_fields.get(key))]
        place = f"{what} '{'.'.join([*parts, key])}'"
        if fault["type"] == "union_tag_not_found":
            return f"{place} is missing; known are {', '.join(kinds)}"
        return f"{place}: '{fault['ctx']['tag']}' is unknown; {_hint(fault['ctx']['tag'], kinds)}"
    where = ".".join(parts)
    place = f"{what} '{where}'" if where else what
    if fault["type"] != "extra_forbidden":
        # pydantic goes on with the name of the class: " or instance of Card".
        said = fault["msg"].removeprefix("Value error, ").split(" or instance of ")[0]
        said = f"{said[0].lower()}{said[1:]}"
        return said if place == "key" else f"{place}: {said}"
    key, fields = parts[-1], section.model_fields
    deeper = [name for name, one in fields.items() if _has(one.annotation, key)]
    return f"{place} is unknown; {_hint(key, list(fields), deeper)}"


def _hint(word: str, known: Sequence[str], deeper: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"it is a key in '{deeper[0]}'" if deeper else f"known are {', '.join(known)}"


def _has(annotation: Any, key: str) -> bool:
    """Whether a section that a key holds, or each of several there, has another key."""
    sections = _sections(annotation)
    return bool(sections) and all(key in one.model_fields for one in sections)


def _place(
    model: type[pydantic.BaseModel], loc: Sequence[str | int]
) -> tuple[list[str], type[pydantic.BaseModel], list[type[pydantic.BaseModel]]]:
    """Where a fault is, as the file has it; the section with that key; the sections below it.

    Of sections that a key ``kind`` tells apart, pydantic puts the kind into the place.
    """
    sections = holders = [model]
    parts: list[str] = []
    for part in loc:
        kinds = [s for s in sections if part in _words(s.model_fields.get("kind"))]
        if len(sections) > 1 and kinds:
            sections = kinds
            continue
        parts.append(str(part))
        holders = sections
        field = sections[0].model_fields.get(str(part))
        sections = (_sections(field.annotation) if field else []) or sections
    return parts, holders[0], sections


def _words(field: Any) -> tuple[Any, ...]:
    """The words that a key may have; none where it may have others."""
    return getattr(field.annotation, "__args__", ()) if field else ()


def _sections(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [s for a in getattr(annotation, "__args__", ()) for s in _sections(a)]
