"""Answers compared in the terms of their task."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from crossfade.ensemble.comparison import Boxes, Comparer, Comparison
from crossfade.runtimes.core.errors import Internal
from crossfade.runtimes.core.model import InferResponse, ModelMetadata, Tensor

METADATA = ModelMetadata("flowers", 1, "fake", {})
BOXES = Boxes("detection_boxes", "detection_scores", "detection_classes")


def answer(**outputs: object) -> InferResponse:
    return InferResponse({name: np.asarray(value) for name, value in outputs.items()}, METADATA)


def test_classes_agree_by_the_first_one_of_each_row() -> None:
    one = answer(y=np.float32([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]))
    other = answer(y=np.float32([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]))

    found = Comparer(("y",))(one, other)

    assert (found.agreed, found.agreement) == (False, 0.5)
    assert found.score_difference == pytest.approx(0.4)
    assert found.rank_correlation == pytest.approx((1 + 0.5) / 2)


@given(arrays.arrays(np.float32, (2, 5), elements=st.integers(0, 4).map(float)))
def test_rank_correlation_is_spearmans(scores: Tensor) -> None:
    found = Comparer(("y",))(answer(y=scores[:1]), answer(y=scores[1:]))

    if len(set(scores[0])) > 1 and len(set(scores[1])) > 1:
        assert found.rank_correlation == pytest.approx(
            stats.spearmanr(scores[0], scores[1]).statistic
        )
    else:
        assert found.rank_correlation is None


def test_values_agree_within_a_tolerance_relative_to_the_larger() -> None:
    compare = Comparer(tolerance=0.01)

    assert compare(answer(price=[1000.0]), answer(price=[1009.0])).agreed
    assert not compare(answer(price=[1000.0]), answer(price=[1011.0])).agreed
    assert compare(answer(price=[np.nan, np.inf]), answer(price=[np.nan, np.inf])).agreed
    assert not compare(answer(price=[1.0]), answer(price=[1.0, 1.0])).agreed


def test_texts_and_integers_agree_only_if_equal() -> None:
    one = answer(label=np.array([b"rose", b"tulip"], object), count=[1, 2])
    other = answer(label=np.array([b"rose", b"lily"], object), count=[1, 2])

    assert Comparer()(one, one).agreed
    found = Comparer()(one, other)
    assert (found.agreed, found.agreement, found.score_difference) == (False, 0.75, None)


def test_a_failure_agrees_with_nothing() -> None:
    assert Comparer()(answer(y=[1.0]), Internal("broken")) == Comparison()


def boxes(*found: tuple[float, float, float, float], classes: list[int], scores: list[float]):
    return answer(
        detection_boxes=np.float32([found]).reshape(1, -1, 4),
        detection_scores=np.float32([scores]),
        detection_classes=np.float32([classes]),
    )


def test_boxes_meet_by_class_and_overlap() -> None:
    one = boxes((0, 0, 1, 1), (0, 0, 0.2, 0.2), classes=[1, 2], scores=[0.9, 0.8])
    shifted = boxes((0, 0, 1, 0.8), (0, 0, 0.2, 0.2), classes=[1, 3], scores=[0.9, 0.8])

    found = Comparer(boxes=BOXES)(one, shifted)

    # The large box has a partner; the small ones differ in class: each of them has none.
    assert found.overlap == pytest.approx(0.8 / 3)
    assert (found.agreed, found.agreement) == (False, pytest.approx(1 / 3))


def test_unsure_boxes_do_not_count_and_nothing_agrees_with_nothing() -> None:
    none = boxes((0, 0, 1, 1), classes=[1], scores=[0.2])
    other = boxes((0.5, 0, 1, 1), classes=[2], scores=[0.1])

    assert Comparer(boxes=BOXES)(none, other) == Comparison(
        True, 1.0, pytest.approx(0.5 * 0 + 1.0), 1.0
    )


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=1, max_size=6))
def test_a_picture_agrees_with_itself(corners: list[tuple[float, float]]) -> None:
    found = [(min(a, 0.9), min(b, 0.9), min(a, 0.9) + 0.1, min(b, 0.9) + 0.1) for a, b in corners]
    one = boxes(*found, classes=[1] * len(found), scores=[0.9] * len(found))

    compared = Comparer(boxes=BOXES)(one, one)

    assert compared.agreed
    assert compared.overlap == pytest.approx(1.0)
