"""Optimisation profiles and sizes, as plain values: which profile takes these shapes?

An engine with dynamic shapes has one or more profiles; each says, for every input, the smallest
shape, the one it was tuned for and the largest. Nothing here touches TensorRT.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument

Shape = tuple[int, ...]
# TensorRT counts elements of a tensor in 31 bits.
_MAX_ELEMENTS: Final = 2**31 - 1
# What CUDA allocations are aligned to; rounding up lets a buffer serve more shapes.
_ALIGNMENT: Final = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """What one profile takes for one input."""

    smallest: Shape
    best: Shape
    largest: Shape

    def takes(self, shape: Shape) -> bool:
        """Whether every dimension is within the range."""
        return len(shape) == len(self.smallest) and all(
            low <= size <= high
            for low, size, high in zip(self.smallest, shape, self.largest, strict=True)
        )

    def distance(self, shape: Shape) -> float:
        """How far from what the profile was tuned for, in octaves over all dimensions."""
        return sum(
            abs(math.log2(max(size, 1) / max(best, 1)))
            for size, best in zip(shape, self.best, strict=True)
        )


Profile = Mapping[str, Range]


def choose(profiles: Sequence[Profile], shapes: Mapping[str, Shape]) -> int:
    """Returns the profile that takes these shapes and was tuned for the nearest ones.

    Args:
        profiles: the engine's, each with all inputs.
        shapes: of every input of a request.

    Raises:
        InvalidArgument: no profile does; the message says what would be taken.
    """
    fitting = [
        (sum(profile[name].distance(shape) for name, shape in shapes.items()), index)
        for index, profile in enumerate(profiles)
        if all(profile[name].takes(shape) for name, shape in shapes.items())
    ]
    if fitting:
        return min(fitting)[1]
    for name, shape in shapes.items():
        if not any(profile[name].takes(shape) for profile in profiles):
            taken = " or ".join(
                f"{list(p[name].smallest)} to {list(p[name].largest)}" for p in profiles
            )
            raise InvalidArgument(
                f"input '{name}' has shape {list(shape)}; the engine was built for {taken}"
            )
    raise InvalidArgument("each input's shape is one the engine was built for, but not together")


def offered(declared: Shape, profiles: Sequence[Profile], name: str) -> Shape:
    """Returns an input's shape for a signature: -1 only where sizes can really differ."""
    return tuple(
        size if size != -1 or not profiles else _only([profile[name] for profile in profiles], at)
        for at, size in enumerate(declared)
    )


def max_rows(profiles: Sequence[Profile]) -> int:
    """Rows of the largest batch that some profile takes."""
    return max(min(r.largest[0] for r in profile.values()) for profile in profiles)


def size_bytes(shape: Shape, itemsize: int, name: str) -> int:
    """Returns the bytes of a tensor, at least one alignment so that an address exists.

    Raises:
        InvalidArgument: a dimension is not known, or there are more elements than TensorRT counts.
    """
    if any(size < 0 for size in shape):
        raise InvalidArgument(f"the shape of '{name}' depends on values, not on the inputs' shapes")
    elements = math.prod(shape)
    if elements > _MAX_ELEMENTS:
        raise InvalidArgument(f"'{name}' would have more elements than an engine can address")
    return max(_ALIGNMENT, -(-elements * itemsize // _ALIGNMENT) * _ALIGNMENT)


def _only(ranges: Sequence[Range], at: int) -> int:
    sizes = {size for r in ranges for size in (r.smallest[at], r.largest[at])}
    return sizes.pop() if len(sizes) == 1 else -1
