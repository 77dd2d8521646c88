"""A runtime's options: what ``artifact.options`` may hold, checked once, at load."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
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
            names = _field_names(cls)
            faults = "; ".join(_explain(fault, names, what) for fault in error.errors())
            raise LoadFailed(faults) from error


def _field_names(kind: type[pydantic.BaseModel]) -> list[str]:
    schema = kind.model_json_schema()
    objects = (schema, *schema.get("$defs", {}).values())
    return [name for found in objects for name in found.get("properties", {})]


def _explain(fault: Any, names: list[str], what: str) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    place = f"{what} '{where}'" if where else what
    if fault["type"] != "extra_forbidden":
        said = fault["msg"].removeprefix("Value error, ")
        return f"{place}: {said[0].lower()}{said[1:]}"
    near = difflib.get_close_matches(str(fault["loc"][-1]), names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"
    return f"{place} is unknown; {hint}"
