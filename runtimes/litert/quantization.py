"""Affine quantisation of one tensor: real = scale * (quantised - zero_point)."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

Parameters = tuple[float, int]


def quantize(name: str, real: Tensor, parameters: Parameters, dtype: np.dtype[Any]) -> Tensor:
    """Quantises as TFLite does: halves away from zero, out of range saturates.

    Args:
        name: the input's name, for messages.
        real: FP32, any shape.
        parameters: scale (positive) and zero point.
        dtype: uint8, int8 or int16.

    Raises:
        InvalidArgument: a value is not a number.
    """
    scale, zero_point = parameters
    steps = real.astype(np.float64) / scale
    if np.isnan(steps).any():
        raise InvalidArgument(f"input '{name}' holds NaN, which has no quantised value")
    # Ties first: adding 0.5 and cutting off is wrong for the float just below 0.5.
    whole = np.trunc(steps)
    with np.errstate(invalid="ignore"):  # inf - inf; rint keeps inf, which saturates below
        ties = np.abs(steps - whole) == 0.5
    rounded = np.where(ties, whole + np.sign(steps), np.rint(steps))
    limits = np.iinfo(dtype)
    stored: Tensor = np.clip(rounded + zero_point, limits.min, limits.max).astype(dtype)
    return stored


def dequantize(quantised: Tensor, parameters: Parameters) -> Tensor:
    """Returns FP32 of the same shape."""
    scale, zero_point = parameters
    steps = quantised.astype(np.int32) - zero_point
    return steps.astype(np.float32) * np.float32(scale)
