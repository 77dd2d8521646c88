"""Finds out whether a model with a batch of one may be given more rows.

Most converted models declare a batch of 1 and take any; some do not: a reshape with the 1 baked
in fails, detection post-processing answers for the first row only, a mean over the batch mixes
the rows, an LSTM keeps state. Nothing in the file says which, so it is tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.model import Tensor, Tensors
from crossfade.runtimes.litert.interpreter import Call, Details

_SEED: Final = 20_260_101


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What trying a signature out has shown.

    Attributes:
        outputs: LiteRT's details of the outputs for one row.
        shapes: the outputs' shapes for one row; empty if the model refused the made-up values.
        stackable: two rows together gave what each gave alone.
        steady: the same row gave the same answer twice; a model with state does not.
    """

    outputs: Details
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    stackable: bool = False
    steady: bool = True


def trial(call: Call, stack: bool) -> Trial:
    """Runs two rows alone and, if ``stack``, together."""
    random = np.random.default_rng(_SEED)
    first, second = ({n: _row(d, random) for n, d in call.inputs.items()} for _ in range(2))
    try:
        one, two, again = (call(row, None) for row in (first, second, first))
    except Exception:
        return Trial(call.outputs())
    outputs, shapes = call.outputs(), {name: array.shape for name, array in one.items()}
    steady = _same(again, one)
    leading = [array.shape[:1] for array in (*first.values(), *one.values())]
    if not stack or not steady or any(lead != (1,) for lead in leading):
        return Trial(outputs, shapes, False, steady)
    try:
        together = call({n: np.concatenate([first[n], second[n]]) for n in first}, None)
    except Exception:
        return Trial(outputs, shapes)
    expected = {n: np.concatenate([one[n], two[n]]) for n in shapes}
    return Trial(outputs, shapes, _same(together, expected))


def _row(details: Mapping[str, Any], random: np.random.Generator) -> Tensor:
    dtype, shape = np.dtype(details["dtype"]), tuple(details["shape"])
    if dtype.kind == "f":
        return random.normal(size=shape).astype(dtype)
    if dtype.kind == "S":
        words = np.empty(shape, dtype=object)
        words.reshape(-1)[:] = [str(n).encode() for n in random.integers(0, 10, words.size)]
        return words
    # 8 and 16 bits are quantised values; wider integers may be indexes: 0 and 1 nearly always are.
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return random.integers(0, 2, shape).astype(dtype)


def _same(got: Tensors, expected: Tensors) -> bool:
    return all(_close(got[name], expected[name]) for name in expected)


def _close(got: Tensor, expected: Tensor) -> bool:
    if got.shape != expected.shape:
        return False
    if got.dtype.kind == "f":
        return bool(np.allclose(got, expected, rtol=1e-3, atol=1e-5, equal_nan=True))
    if got.dtype.kind in "iu" and got.dtype.itemsize <= 2:
        return bool((np.abs(got.astype(np.int64) - expected.astype(np.int64)) <= 1).all())
    return bool((got == expected).all())
