from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from crossfade.training.arr_coc.metrics import Ranking, average_precision, calibration_error

SCORES = arrays.arrays(np.float64, 30, elements=st.integers(0, 9).map(float))
TRUTH = arrays.arrays(bool, 30).filter(lambda t: t.any())


@given(SCORES, TRUTH)
def test_average_precision_is_that_of_scikit_learn(scores: np.ndarray, truth: np.ndarray) -> None:
    assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))


@given(SCORES, TRUTH, arrays.arrays(np.int64, 30, elements=st.integers(0, 3)))
def test_a_weight_is_so_many_copies(s: np.ndarray, t: np.ndarray, w: np.ndarray) -> None:
    many, true = np.repeat(s, w), np.repeat(t, w)
    if true.any():
        assert average_precision(s, t, w) == pytest.approx(average_precision(many, true))
        ours, theirs = Ranking.of(s, t), Ranking.of(many, true)
        assert ours.precision_at(0.8, w) == pytest.approx(theirs.precision_at(0.8))


@given(SCORES, TRUTH, st.floats(0.01, 1))
def test_the_threshold_reaches_the_recall(s: np.ndarray, t: np.ndarray, recall: float) -> None:
    ranking = Ranking.of(s, t)
    chosen = s >= ranking.threshold_at(recall)
    assert chosen[t].mean() >= recall - 1e-9
    assert t[chosen].mean() == pytest.approx(ranking.precision_at(recall))


def test_calibration_error_is_the_gap() -> None:
    assert calibration_error(np.full(100, 0.8), np.arange(100) < 50) == pytest.approx(0.3)
    assert calibration_error(np.full(100, 0.5), np.arange(100) < 50) == pytest.approx(0)
