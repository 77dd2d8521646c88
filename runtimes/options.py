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
    where = ".".join(str(part) for part in fault["loc"])
    place = f"{what} '{where}'" if where else what
    if fault["type"] != "extra_forbidden":
        said = fault["msg"].removeprefix("Value error, ")
        return f"{place}: {said[0].lower()}{said[1:]}"
    known = _keys_at(model, fault["loc"][:-1])
    near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return f"{place} is unknown; {hint}"


def _keys_at(model: type[pydantic.BaseModel], place: Sequence[str | int]) -> list[str]:
    """Follows a fault's place down the sections to the keys that are allowed there."""
    for part in place:
        field = model.model_fields.get(str(part))
        sections = _sections(field.annotation) if field else []
        if sections:
            model = sections[0]
    return list(model.model_fields)


def _sections(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [s for a in getattr(annotation, "__args__", ()) for s in _sections(a)]
