"""What a session may say of itself beside its signatures, as plain values and back.

See ``Session``: all of it is optional. What comes back is not believed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from crossfade.runtimes.core.errors import LoadFailed

Quantization = Mapping[str, tuple[float, int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """The optional facts of a session; ``None`` is what it did not say.

    Attributes:
        quantization: scale and zero point by name of inputs and outputs.
        nodes: how many nodes of the graph run where.
    """

    instances: int | None = None
    max_rows: int | None = None
    quantization: Quantization = dataclasses.field(default_factory=dict)
    nodes: Mapping[str, int] = dataclasses.field(default_factory=dict)


def plain(session: Any) -> dict[str, Any]:
    """The facts of a session as JSON has them."""
    quantization: Quantization = getattr(session, "quantization", {})
    return {
        "instances": getattr(session, "instances", None),
        "max_rows": getattr(session, "max_rows", None),
        "quantization": {name: list(stored) for name, stored in quantization.items()},
        "nodes": dict(getattr(session, "nodes", {})),
    }


def read(values: Any) -> Facts:
    """Facts of plain values.

    Raises:
        LoadFailed: they are none.
    """
    try:
        return Facts(
            _count(values["instances"], 1),
            _count(values["max_rows"], 1),
            {str(name): _stored(*stored) for name, stored in values["quantization"].items()},
            {str(where): _whole(count, 0) for where, count in values["nodes"].items()},
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise LoadFailed("the worker process described the model in no way known here") from error


def _count(value: Any, least: int) -> int | None:
    return None if value is None else _whole(value, least)


def _whole(value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(value)
    return value


def _stored(scale: Any, zero_point: Any) -> tuple[float, int]:
    number = float(scale)
    if not math.isfinite(number):
        raise ValueError(scale)
    return number, int(zero_point)
