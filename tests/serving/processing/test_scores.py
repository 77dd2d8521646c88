"""Activations, labels, the best ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.serving.processing.scores import activate, best, label_texts

EXAMPLES = settings(deadline=None)

LABELS = [b"a", b"b", b"c", b"d"]
SCORES = np.array([[0.1, 0.6, 0.05, 0.25], [0.4, 0.1, 0.1, 0.4]], np.float32)


def test_activations() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0], [1.0, 2.0, 3.0]])
    soft = activate(logits, "softmax")
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(soft[0], [1, 0, 0])
    np.testing.assert_allclose(soft[1], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(), rtol=1e-6)
    single = activate(logits, "sigmoid")
    np.testing.assert_allclose(single[0], [1, 0.5, 0])
    np.testing.assert_allclose(single[1], 1 / (1 + np.exp([-1, -2, -3])), rtol=1e-6)
    np.testing.assert_array_equal(activate(logits, None), logits)
    assert np.isnan(activate(np.array([[np.inf, np.inf]]), "softmax")).all()


def test_in_index_order() -> None:
    texts, scores = best(SCORES, LABELS, None, None)
    assert texts.tolist() == [LABELS, LABELS]
    np.testing.assert_array_equal(scores, SCORES)


def test_the_best_first() -> None:
    texts, scores = best(SCORES, LABELS, 2, None)
    assert texts.tolist() == [[b"b", b"d"], [b"a", b"d"]]
    np.testing.assert_array_equal(scores, np.float32([[0.6, 0.25], [0.4, 0.4]]))


def test_what_is_below_is_padded() -> None:
    texts, scores = best(SCORES, LABELS, 3, 0.25)
    assert texts.tolist() == [[b"b", b"d", b""], [b"a", b"d", b""]]
    np.testing.assert_array_equal(scores, np.float32([[0.6, 0.25, 0], [0.4, 0.4, 0]]))
    texts, scores = best(np.array([[np.nan, 0.9]]), [], None, 0.5)
    assert texts.tolist() == [[b"", b"1"]]
    assert scores.tolist() == [[0, pytest.approx(0.9)]]


def test_more_wanted_than_there_are() -> None:
    texts, scores = best(SCORES, LABELS, 9, None)
    assert texts.shape == scores.shape == (2, 4)


def test_labels() -> None:
    numbers = np.array([[0, 3, 4], [-1, 1, 2]], np.float32)
    assert label_texts(numbers, LABELS).tolist() == [[b"a", b"d", b"4"], [b"-1", b"b", b"c"]]
    assert label_texts(np.float32([np.nan, np.inf]), LABELS).tolist() == [b"-1", b"-1"]
    assert label_texts(np.array([1, 4, 5]), LABELS, -1).tolist() == [b"a", b"d", b"5"]


@EXAMPLES
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_the_best_are_the_best(rows: list[list[float]], top_k: int) -> None:
    texts, scores = best(np.array(rows, np.float32), LABELS, top_k, None)
    for row, text, score in zip(rows, texts.tolist(), scores.tolist(), strict=True):
        by_hand = sorted(range(4), key=lambda i: (-row[i], i))[:top_k]
        assert text == [LABELS[i] for i in by_hand]
        assert score == [row[i] for i in by_hand]
