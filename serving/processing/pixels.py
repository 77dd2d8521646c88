"""Pixels to the numbers, the layout and the dtype that a model wants. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from crossfade.runtimes.core.model import Tensor

Layout = Literal["nhwc", "nchw"]
Color = Literal["rgb", "bgr", "gray"]


@dataclasses.dataclass(frozen=True, slots=True)
class Pixels:
    """What is done to pixels once they have the right size. Thread-safe.

    The numbers are ``(pixel * scale - mean) / std``. An integer dtype stores them as the
    quantisation says; without one it stores pixels, INT8 those less 128.

    Attributes:
        mean, std: one for each channel, or one for all.
        quantization: scale and zero point.
    """

    dtype: np.dtype[Any]
    layout: Layout = "nhwc"
    color: Color = "rgb"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    quantization: tuple[float, int] | None = None

    def write(self, pixels: Tensor, into: Tensor) -> None:
        """Fills one row of a batch.

        Args:
            pixels: [height, width, channels], UINT8 or FP32 from 0 to 255; RGB or gray.
            into: [height, width, channels] or, for ``nchw``, [channels, height, width].
        """
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        target = into if self.layout == "nhwc" else np.moveaxis(into, 0, -1)
        plain = (self.scale, set(self.mean), set(self.std)) == (1.0, {0.0}, {1.0})
        if plain and (self.quantization is None or self.dtype.kind not in "iu"):
            if self.dtype == np.int8:
                pixels = np.rint(pixels).astype(np.int16) - 128
            elif self.dtype.kind in "iu" and pixels.dtype.kind == "f":
                pixels = np.rint(pixels)
            target[...] = pixels
            return
        std = np.array(self.std, np.float64)
        factor, shift = self.scale / std, np.array(self.mean, np.float64) / std
        if self.quantization is not None and self.dtype.kind in "iu":
            step, zero_point = self.quantization
            factor, shift = factor / step, shift / step - zero_point
        values = pixels * factor.astype(np.float32) - shift.astype(np.float32)
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        target[...] = values
