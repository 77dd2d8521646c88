"""Inputs that nobody sends on purpose: zeros, edges, one element alone, odd sizes. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.model import Signature, Tensor, Tensors, TensorSpec

# For a dimension that may be any size: the usual one first.
SIZES: Final = (32, 1, 7, 33)
_LARGE: Final = 1e4
Range = tuple[float, float]
Fill = Callable[[TensorSpec, tuple[int, ...]], Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """One made-up input.

    Attributes:
        expected: values and sizes that the model was made for: it is held to the tolerance.
            Beyond them an answer only has to be as finite as the reference's.
    """

    name: str
    inputs: Tensors
    expected: bool = True


def probes(
    signature: Signature,
    value_range: Range,
    max_rows: int,
    seed: int,
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[Probe]:
    """Makes all probes for a signature.

    Args:
        signature: what the inputs must fit.
        value_range: of floating-point inputs.
        max_rows: rows of the largest batch.
        seed: of the random ones.
        sizes: each input's shape without the batch, where it is known of real data.
    """
    low, high = value_range
    random = np.random.default_rng(seed)
    known = sizes or {}

    def make(fill: Fill, rows: int = 1, free: int = SIZES[0]) -> dict[str, Tensor]:
        return {
            spec.name: fill(spec, shape_of(spec, rows, free, known.get(spec.name)))
            for spec in signature.inputs
        }

    def uniform(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        return draw(spec, shape, value_range, random)

    yield Probe("random", make(uniform))
    if signature.batched:
        for rows in sorted({2, max_rows} - {1}):
            yield Probe(f"random, {rows} rows", make(uniform, rows))
    if any(-1 in (spec.shape or ())[signature.batched :] for spec in signature.inputs):
        known = {}
        for size in SIZES:
            yield Probe(f"random, free sizes {size}", make(uniform, free=size))
    yield Probe("zeros", make(constant(0.0)), low <= 0 <= high)
    yield Probe("ones", make(constant(1.0)), low <= 1 <= high)
    yield Probe("lowest", make(extreme(low)))
    yield Probe("highest", make(extreme(high)))
    yield Probe("lowest and highest in turn", make(alternating(low, high)))
    yield Probe("one element", make(one_hot(high)))
    yield Probe("large", make(alternating(-_LARGE, _LARGE)), expected=False)
    yield Probe("edges of the dtype", make(edges), expected=False)


def shape_of(
    spec: TensorSpec, rows: int, free: int, known: Sequence[int] | None = None
) -> tuple[int, ...]:
    """A shape that fits ``spec``; its leading -1 is ``rows``, each other one ``free``.

    Args:
        spec: an input.
        rows: of the batch.
        free: size of the other dimensions that may be any.
        known: sizes after the first dimension that real data had.
    """
    dims = spec.shape if spec.shape is not None else (-1,)
    if known is not None and len(known) == len(dims) - 1:
        dims = (*dims[:1], *known)
    return tuple((rows if i == 0 else free) if size == -1 else size for i, size in enumerate(dims))


def draw(
    spec: TensorSpec, shape: tuple[int, ...], value_range: Range, random: np.random.Generator
) -> Tensor:
    """Uniform values: floats of the range, 8 and 16 bits all, wider integers 0 and 1."""
    dtype = NUMPY[spec.dtype]
    if spec.dtype == "BYTES":
        words = np.empty(shape, dtype=np.object_)
        words.reshape(-1)[:] = [str(n).encode() for n in random.integers(0, 10, words.size)]
        return words
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize > 2):
        return random.integers(0, 2, shape).astype(dtype)  # wider integers may be indexes
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return random.uniform(*value_range, shape).astype(dtype)


def _clipped(spec: TensorSpec, values: Tensor) -> Tensor:
    """Real values as the dtype has them; texts for BYTES."""
    dtype = NUMPY[spec.dtype]
    if spec.dtype == "BYTES":
        return np.full(values.shape, b"", dtype=np.object_)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), float(limits.min), float(limits.max)).astype(dtype)
    return values.astype(dtype)


def constant(value: float) -> Fill:
    """Fills with one value, as it is."""

    def fill(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        return _clipped(spec, np.full(shape, value))

    return fill


def extreme(value: float) -> Fill:
    """Fills with an end of the range, or of the dtype."""

    def fill(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        return _clipped(spec, np.full(shape, _end(spec, value)))

    return fill


def alternating(low: float, high: float) -> Fill:
    """Fills with two values in turn."""

    def fill(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        odd = np.arange(int(np.prod(shape))).reshape(shape) % 2 == 1
        return _clipped(spec, np.where(odd, _end(spec, high), _end(spec, low)))

    return fill


def one_hot(value: float) -> Fill:
    """Zeros, and one element in the middle."""

    def fill(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
        values = np.zeros(shape)
        if values.size:
            values.reshape(-1)[values.size // 2] = _end(spec, value)
        return _clipped(spec, values)

    return fill


def edges(spec: TensorSpec, shape: tuple[int, ...]) -> Tensor:
    """The dtype's smallest and largest values in turn; floats that a product cannot overflow."""
    dtype = NUMPY[spec.dtype]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        odd = np.arange(int(np.prod(shape))).reshape(shape) % 2 == 1
        return np.where(odd, limits.max, limits.min).astype(dtype)
    return (
        alternating(-1e3 * _LARGE, 1e3 * _LARGE)(spec, shape)
        if dtype.itemsize > 2
        else (alternating(-_LARGE, _LARGE)(spec, shape))
    )


def _end(spec: TensorSpec, value: float) -> float:
    """An end of the floats' range for any dtype: 8 and 16 bits have their own, others 0 and 1."""
    dtype = NUMPY[spec.dtype]
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize > 2):
        return float(value > 0)
    if dtype.kind not in "iu":
        return value
    limits = np.iinfo(dtype)
    return float(limits.max if value > 0 else limits.min)
