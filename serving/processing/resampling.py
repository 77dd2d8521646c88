"""Resampling by the declared filter: Pillow where it is exact and fast, numpy for the rest.

Pixel centres lie at half positions, and what lies outside of the picture does not count, in both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from crossfade.runtimes.core.model import Tensor

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
Box = tuple[float, float, float, float]
_Floats = np.ndarray[Any, np.dtype[np.float64]]
# With antialiasing Pillow does what TensorFlow and PyTorch do, in 8 bits.
_PILLOW: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize(
    image: Image.Image, height: int, width: int, by: Filter, *, antialias: bool, box: Box
) -> Tensor:
    """Makes a picture of another size of a part of one.

    Args:
        image: mode L or RGB.
        height: of the result, in pixels.
        width: of the result, in pixels.
        by: the filter.
        antialias: see ``docs/preprocessing.md``; ``nearest`` and ``area`` do not have it.
        box: left, top, right, bottom of the part, in pixels; fractions are allowed.

    Returns:
        [height, width, channels], UINT8 or FP32, from 0 to 255.
    """
    whole = (0.0, 0.0, float(width), float(height))
    if image.size == (width, height) and box == whole:
        return _channels(np.asarray(image))
    if antialias and by in _PILLOW:
        return _channels(np.asarray(image.resize((width, height), _PILLOW[by], box)))
    left, top, right, bottom = box
    pixels = _channels(np.asarray(image))
    if by == "nearest":
        rows = _nearest(image.height, height, top, bottom)
        columns = _nearest(image.width, width, left, right)
        return pixels[rows][:, columns]
    rows, row_weights = _taps(by, image.height, height, top, bottom)
    columns, column_weights = _taps(by, image.width, width, left, right)
    tall = _weigh(pixels, rows, row_weights)
    full = _weigh(tall.swapaxes(0, 1), columns, column_weights).swapaxes(0, 1)
    result: Tensor = np.clip(full, 0, 255)
    return result


def _weigh(pixels: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sums lines of [lines, n, channels] by [wanted, taps] indexes and weights; FP32."""
    total = np.zeros((len(index), *pixels.shape[1:]), np.float32)
    for tap in range(index.shape[1]):
        total += pixels[index[:, tap]] * weights[:, tap, None, None]
    return total


def _channels(array: Tensor) -> Tensor:
    return array[..., None] if array.ndim == 2 else array


def _nearest(size: int, wanted: int, start: float, stop: float) -> Tensor:
    at = start + (np.arange(wanted) + 0.5) * ((stop - start) / wanted)
    found: Tensor = np.clip(np.floor(at), 0, size - 1).astype(np.intp)
    return found


@functools.lru_cache(256)
def _taps(by: Filter, size: int, wanted: int, start: float, stop: float) -> tuple[Tensor, Tensor]:
    """Which old pixels make each new one, and with what weights; both [wanted, taps]."""
    scale = (stop - start) / wanted
    centres = start + (np.arange(wanted) + 0.5) * scale
    if by == "area":
        low, high = centres - scale / 2, centres + scale / 2
        count = math.ceil(scale) + 1
        index = np.floor(low)[:, None] + np.arange(count)
        weights = np.minimum(high[:, None], index + 1) - np.maximum(low[:, None], index)
        weights = np.maximum(weights, 0)
    else:
        kernel, support = _KERNELS[by]
        index = np.floor(centres - support + 0.5)[:, None] + np.arange(2 * support)
        weights = kernel(index + 0.5 - centres[:, None])
    weights = np.where((index >= 0) & (index < size), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(index, 0, size - 1).astype(np.intp), weights.astype(np.float32)


def _triangle(x: _Floats) -> _Floats:
    weights: _Floats = np.maximum(0, 1 - np.abs(x))
    return weights


def _cubic(x: _Floats) -> _Floats:
    """Keys' kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _lanczos(x: _Floats) -> _Floats:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


_KERNELS: Final[dict[str, tuple[Callable[[_Floats], _Floats], int]]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
    "lanczos": (_lanczos, 3),
}
