"""Where pictures lie in the model's input, and boxes on the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.serving.processing.framing import Fit, Frame

EXAMPLES = settings(deadline=None)

sides = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@EXAMPLES
@given(sides, sides, st.sampled_from(["stretch", "crop", "letterbox"]), st.floats(0.1, 1))
def test_nothing_lies_outside(
    picture: tuple[int, int], target: tuple[int, int], how: Fit, fraction: float
) -> None:
    frame = Frame.fit(picture, target, how, fraction if how == "crop" else 1.0)
    left, top, right, bottom = frame.source
    assert 0 <= left < right <= picture[0]
    assert 0 <= top < bottom <= picture[1]
    assert frame.left >= 0
    assert frame.top >= 0
    assert frame.width >= 1
    assert frame.height >= 1
    assert frame.left + frame.width <= target[0]
    assert frame.top + frame.height <= target[1]


@EXAMPLES
@given(sides, sides)
def test_proportions(picture: tuple[int, int], target: tuple[int, int]) -> None:
    box = Frame.fit(picture, target, "letterbox")
    assert box.width == target[0] or box.height == target[1]
    assert abs(box.left - (target[0] - box.width) / 2) <= 0.5
    assert abs(box.top - (target[1] - box.height) / 2) <= 0.5
    left, top, right, bottom = Frame.fit(picture, target, "crop").source
    assert (right - left) * target[1] == pytest.approx((bottom - top) * target[0], rel=1e-6)


@EXAMPLES
@given(sides, sides, st.sampled_from(["stretch", "crop", "letterbox"]), st.data())
def test_boxes_find_back(
    picture: tuple[int, int], target: tuple[int, int], how: Fit, data: st.DataObject
) -> None:
    """A point of the picture that the input shows comes back where it was."""
    frame = Frame.fit(picture, target, how)
    left, top, right, bottom = frame.source
    fraction = st.floats(0, 1)
    xs = sorted([data.draw(fraction), data.draw(fraction)])
    ys = sorted([data.draw(fraction), data.draw(fraction)])
    of_picture, of_input = np.empty((2, 1, 4))
    for at, (x, y) in enumerate(zip(xs, ys, strict=True)):
        of_picture[0, 2 * at + 1] = (left + x * (right - left)) / picture[0]
        of_picture[0, 2 * at] = (top + y * (bottom - top)) / picture[1]
        of_input[0, 2 * at + 1] = (frame.left + x * frame.width) / target[0]
        of_input[0, 2 * at] = (frame.top + y * frame.height) / target[1]
    np.testing.assert_allclose(frame.back(of_input), of_picture, atol=1e-5)


def test_a_letterbox_in_numbers() -> None:
    frame = Frame.fit((200, 100), (100, 100), "letterbox")
    assert (frame.left, frame.top, frame.width, frame.height) == (0, 25, 100, 50)
    back = frame.back(np.array([[0.25, 0.0, 0.75, 1.0], [0.0, 0.5, 0.5, 0.75]]))
    np.testing.assert_allclose(back, [[0, 0, 1, 1], [0, 0.5, 0.5, 0.75]])


def test_the_usual_crop_of_imagenet() -> None:
    """256 by the short side, then the middle 224, is this fraction of the largest square."""
    frame = Frame.fit((400, 256), (224, 224), "crop", 224 / 256)
    assert frame.source == pytest.approx((88, 16, 312, 240))
