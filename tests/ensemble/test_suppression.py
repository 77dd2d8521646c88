"""Non-maximum suppression against the textbook and TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.ensemble.boxes import overlap, surest

EXAMPLES = settings(deadline=None)


def slow_overlap(a: list[float], b: list[float]) -> float:
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0.0) * max(width, 0.0)
    union = (
        max(a[2] - a[0], 0) * max(a[3] - a[1], 0)
        + max(b[2] - b[0], 0) * max(b[3] - b[1], 0)
        - shared
    )
    return shared / union if union > 0 else 0.0


def slow_suppression(
    boxes: list[list[float]],
    scores: list[float],
    classes: list[int] | None,
    limit: float,
    most: int,
) -> list[int]:
    kept: list[int] = []
    for one in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if len(kept) == most:
            break
        rivals = [k for k in kept if classes is None or classes[k] == classes[one]]
        if all(slow_overlap(boxes[k], boxes[one]) <= limit for k in rivals):
            kept.append(one)
    return kept


# Whole numbers: both ways of computing an overlap then give the same float.
sides = st.integers(0, 12)
a_box = st.tuples(sides, sides, sides, sides).map(lambda s: [float(v) for v in s])


@EXAMPLES
@given(st.lists(st.tuples(a_box, st.integers(0, 5), st.integers(0, 2)), max_size=25), st.data())
def test_suppression(found: list[tuple[list[float], int, int]], data: st.DataObject) -> None:
    boxes = [box for box, _, _ in found]
    scores = [score / 5 for _, score, _ in found]
    classes = [kind for _, _, kind in found] if data.draw(st.booleans()) else None
    limit = data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    most = data.draw(st.integers(1, 30))
    got = surest(
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores),
        None if classes is None else np.array(classes),
        limit,
        most,
    )
    assert got.tolist() == slow_suppression(boxes, scores, classes, limit, most)


def test_tensorflow_agrees() -> None:
    tf = pytest.importorskip("tensorflow")
    random = np.random.default_rng(3)
    low = random.random((200, 2), np.float32)
    boxes = np.concatenate([low, low + random.random((200, 2), np.float32) / 2], axis=1)
    scores = random.random(200, np.float32)
    expected = tf.image.non_max_suppression(boxes, scores, 50, 0.4).numpy()
    got = surest(boxes, scores, None, 0.4, 50)
    np.testing.assert_array_equal(got, expected)


@EXAMPLES
@given(a_box, st.lists(a_box, min_size=1, max_size=5))
def test_overlap(one: list[float], others: list[list[float]]) -> None:
    got = overlap(np.array([one]), np.array(others))[0]
    assert got.tolist() == pytest.approx([slow_overlap(one, other) for other in others])
