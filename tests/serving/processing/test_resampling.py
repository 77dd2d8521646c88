"""Filters against Pillow, TensorFlow, and what can be said of any filter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crossfade.serving.processing.resampling import Filter, resize
from tests.serving.processing.pictures import scene

EXAMPLES = settings(deadline=None)

FILTERS: list[tuple[Filter, bool]] = [
    ("nearest", True),
    ("area", True),
    *[(by, antialias) for by in ("bilinear", "bicubic", "lanczos") for antialias in (True, False)],
]
SIZES = [(224, 224), (20, 100), (90, 31), (300, 400)]


def whole(image: Image.Image) -> tuple[float, float, float, float]:
    return (0.0, 0.0, float(image.width), float(image.height))


def noise(height: int = 37, width: int = 53) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("by", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", SIZES)
def test_pillow_to_the_bit(by: Any, size: tuple[int, int]) -> None:
    image = noise()
    expected = image.resize(size[::-1], getattr(Image.Resampling, by.upper()))
    got = resize(image, *size, by, antialias=True, box=whole(image))
    np.testing.assert_array_equal(got, np.asarray(expected))


# Largest and mean difference. With antialiasing Pillow cuts off what overshoots between its two
# passes, and rounds; noise is the worst case of that.
TENSORFLOW = {
    ("nearest", False): (0, 0),
    ("area", False): (0.05, 0.01),
    ("bilinear", False): (0.01, 0.01),
    ("bicubic", False): (0.3, 0.05),  # TensorFlow looks its weights up in a table
    ("lanczos", False): (0.01, 0.01),
    ("bilinear", True): (1, 0.4),
    ("bicubic", True): (40, 0.5),
    ("lanczos", True): (60, 0.8),
}


@pytest.mark.parametrize(("case", "limits"), TENSORFLOW.items())
@pytest.mark.parametrize("size", SIZES)
def test_tensorflow(case: Any, limits: tuple[float, float], size: tuple[int, int]) -> None:
    tf = pytest.importorskip("tensorflow")
    by, antialias = case
    image = noise()
    method = {"lanczos": "lanczos3"}.get(by, by)
    expected = tf.image.resize(np.asarray(image), size, method=method, antialias=antialias)
    off = np.abs(
        np.clip(expected.numpy().astype(np.float32), 0, 255)
        - resize(image, *size, by, antialias=antialias, box=whole(image))
    )
    assert off.max() <= limits[0]
    assert off.mean() <= limits[1]


@pytest.mark.parametrize(("by", "antialias"), FILTERS)
@EXAMPLES
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 60), st.integers(1, 60))
def test_one_colour_stays_one_colour(
    by: Filter, antialias: bool, size: tuple[int, int], tall: int, wide: int
) -> None:
    image = Image.new("RGB", size, (17, 99, 201))
    got = resize(image, tall, wide, by, antialias=antialias, box=whole(image))
    assert got.shape == (tall, wide, 3)
    np.testing.assert_allclose(got, np.broadcast_to([17, 99, 201], got.shape), atol=0.001)


@pytest.mark.parametrize(("by", "antialias"), FILTERS)
@EXAMPLES
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.integers(0, 99),
)
def test_turned_before_or_after(
    by: Filter, antialias: bool, old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    """A filter treats both directions alike; what overshoots is far from 100 to 150."""
    pixels = np.random.default_rng(seed).integers(100, 150, old, dtype=np.uint8)
    straight, turned = Image.fromarray(pixels), Image.fromarray(pixels.T)
    one = resize(straight, *new, by, antialias=antialias, box=whole(straight))
    two = resize(turned, *new[::-1], by, antialias=antialias, box=whole(turned))
    assert np.abs(one.astype(float) - two.astype(float).swapaxes(0, 1)).max() <= 2


@pytest.mark.parametrize(("by", "antialias"), FILTERS)
def test_a_part(by: Filter, antialias: bool) -> None:
    """A box of whole pixels, in its own size, is cut out."""
    image = Image.fromarray(scene())
    got = resize(image, 10, 20, by, antialias=antialias, box=(5.0, 3.0, 25.0, 13.0))
    np.testing.assert_allclose(got, scene()[3:13, 5:25], atol=0.51)


def test_gray_has_one_channel() -> None:
    image = Image.fromarray(scene()[..., 0])
    for by, antialias in FILTERS:
        assert resize(image, 7, 9, by, antialias=antialias, box=whole(image)).shape == (7, 9, 1)
    assert resize(image, 30, 40, "area", antialias=True, box=whole(image)).shape == (30, 40, 1)
