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
    return "; ".join(_fault(fault, model, what) for fault in error.errors())


def _fault(fault: Any, model: type[pydantic.BaseModel], what: str) -> str:
    parts, known = _place(model, fault["loc"])
    where = ".".join(parts)
    place = f"{what} '{where}'" if where else what
    if fault["type"] != "extra_forbidden":
        said = fault["msg"].removeprefix("Value error, ")
        return f"{place}: {said[0].lower()}{said[1:]}"
    near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return f"{place} is unknown; {hint}"


def _place(
    model: type[pydantic.BaseModel], loc: Sequence[str | int]
) -> tuple[list[str], list[str]]:
    """Where a fault is, as the file has it, and the keys that are allowed there.

    Of sections that a key ``kind`` tells apart, pydantic puts the kind into the place.
    """
    sections = [model]
    parts: list[str] = []
    for part in loc[:-1]:
        kinds = [s for s in sections if part in _words(s.model_fields.get("kind"))]
        if len(sections) > 1 and kinds:
            sections = kinds
            continue
        parts.append(str(part))
        field = sections[0].model_fields.get(str(part))
        sections = (_sections(field.annotation) if field else []) or sections
    parts += [str(part) for part in loc[-1:]]
    return parts, list(sections[0].model_fields)


def _words(field: Any) -> tuple[Any, ...]:
    """The words that a key may have; none where it may have others."""
    return getattr(field.annotation, "__args__", ()) if field else ()


def _sections(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [s for a in getattr(annotation, "__args__", ()) for s in _sections(a)]
