"""Numbers, layout and dtype, against one pixel at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.serving.processing.pixels import Layout, Pixels
from tests.serving.processing.pictures import scene

EXAMPLES = settings(deadline=None)


def write(pixels: Pixels, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width, channels = picture.shape
    nchw = pixels.layout == "nchw"
    row = (channels, height, width) if nchw else (height, width, channels)
    into = np.empty(row, pixels.dtype)
    pixels.write(picture, into)
    return into


@pytest.mark.parametrize("dtype", ["UINT8", "FP32", "FP16", "BF16", "INT32", "FP64"])
def test_pixels_as_they_are(dtype: str) -> None:
    got = write(Pixels(NUMPY[dtype]), scene())
    np.testing.assert_array_equal(got.astype(np.float64), scene())


def test_int8_is_uint8_less_128() -> None:
    np.testing.assert_array_equal(write(Pixels(NUMPY["INT8"]), scene()), scene().astype(int) - 128)
    half = np.full((1, 1, 3), 254.6, np.float32)
    assert write(Pixels(NUMPY["INT8"]), half).tolist() == [[[127] * 3]]
    assert write(Pixels(NUMPY["UINT8"]), half).tolist() == [[[255] * 3]]


def test_bgr() -> None:
    got = write(Pixels(NUMPY["UINT8"], color="bgr"), scene())
    np.testing.assert_array_equal(got, scene()[..., ::-1])


numbers = st.floats(-300, 300, width=32)
positive = st.floats(0.0625, 300, width=32)


@EXAMPLES
@given(
    st.sampled_from(["nhwc", "nchw"]),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(numbers, numbers, numbers),
    st.tuples(positive, positive, positive),
    positive,
)
def test_normalised_one_by_one(
    layout: Layout,
    size: tuple[int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    scale: float,
) -> None:
    height, width = size
    picture = scene(height, width)
    pixels = Pixels(NUMPY["FP32"], layout, "rgb", scale, mean, std)
    got = write(pixels, picture)
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                value = int(picture[y, x, channel])
                expected = (value * scale - mean[channel]) / std[channel]
                place = (channel, y, x) if layout == "nchw" else (y, x, channel)
                size = 1 + (value * scale + abs(mean[channel])) / std[channel]
                assert abs(got[place] - expected) <= 1e-5 * size


@pytest.mark.parametrize(
    ("dtype", "quantization"), [("UINT8", (1 / 127, 128)), ("INT8", (1 / 128, 0))]
)
def test_stored_as_integers(dtype: str, quantization: tuple[float, int]) -> None:
    """(pixel - 127.5) / 127.5, as a quantised model stores it; what does not fit saturates."""
    pixels = Pixels(NUMPY[dtype], mean=(127.5,), std=(127.5,), quantization=quantization)
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    step, zero = quantization
    real = (np.arange(256) - 127.5) / 127.5
    limits = np.iinfo(NUMPY[dtype])
    expected = np.clip(real / step + zero, limits.min, limits.max)
    got = write(pixels, every).ravel()
    assert np.abs(got - expected).max() <= 0.5001


def test_one_mean_for_all_channels() -> None:
    got = write(Pixels(NUMPY["FP32"], mean=(127.5,), std=(127.5,)), scene())
    np.testing.assert_allclose(got, (scene() - 127.5) / 127.5, atol=1e-6)
