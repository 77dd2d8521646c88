"""The laws of affine quantisation."""

from __future__ import annotations

from fractions import Fraction

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.litert.quantization import dequantize, quantize

DTYPES = st.sampled_from([np.dtype(d) for d in (np.uint8, np.int8, np.int16)])
SCALES = st.floats(2.0**-20, 2.0**10, width=32)
REALS = st.floats(width=32, allow_nan=False)


@st.composite
def parameters(draw: st.DrawFn) -> tuple[tuple[float, int], np.dtype]:
    dtype = draw(DTYPES)
    limits = np.iinfo(dtype)
    return (draw(SCALES), draw(st.integers(limits.min, limits.max))), dtype


def reference(value: float, scale: float, zero_point: int, dtype: np.dtype) -> int:
    """Exact: round half away from zero, then saturate."""
    limits = np.iinfo(dtype)
    if np.isinf(value):
        return limits.max if value > 0 else limits.min
    steps = abs(Fraction(value) / Fraction(scale))
    whole = int(steps + Fraction(1, 2)) * (1 if value > 0 else -1)
    return max(limits.min, min(limits.max, whole + zero_point))


@given(parameters(), hnp.arrays(np.float32, hnp.array_shapes(max_side=4), elements=REALS))
def test_rounds_and_saturates_exactly(chosen: tuple, reals: np.ndarray) -> None:
    (scale, zero_point), dtype = chosen
    got = quantize("x", reals, (scale, zero_point), dtype)
    assert got.dtype == dtype
    assert got.shape == reals.shape
    wanted = [reference(float(v), scale, zero_point, dtype) for v in reals.reshape(-1)]
    assert np.abs(got.reshape(-1).astype(int) - wanted).max(initial=0) == 0


@pytest.mark.parametrize(
    ("real", "stored"),
    [(0.5, 1), (-0.5, -1), (1.5, 2), (2.5, 3), (0.49999997, 0), (-2.5, -3), (np.inf, 127)],
)
def test_halves_go_away_from_zero(real: float, stored: int) -> None:
    assert quantize("x", np.float32([real]), (1.0, 0), np.dtype(np.int8)).tolist() == [stored]


@given(parameters(), st.data())
def test_every_stored_value_survives_a_round_trip(chosen: tuple, data: st.DataObject) -> None:
    both, dtype = chosen
    stored = data.draw(hnp.arrays(dtype, 8))
    real = dequantize(stored, both)
    assert real.dtype == np.float32
    assert quantize("x", real, both, dtype).tolist() == stored.tolist()


@given(parameters(), hnp.arrays(np.float32, 8, elements=REALS))
def test_order_is_kept(chosen: tuple, reals: np.ndarray) -> None:
    both, dtype = chosen
    stored = quantize("x", np.sort(reals), both, dtype).astype(int)
    assert (np.diff(stored) >= 0).all()


def test_nan_has_no_stored_value() -> None:
    with pytest.raises(InvalidArgument, match="'x' holds NaN"):
        quantize("x", np.float32([1, np.nan]), (0.1, 0), np.dtype(np.uint8))
