from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from crossfade.training.arr_coc.baselines import AGNOSTIC, ARR_COC, CENTRE_RULE, LABEL, RULE
from crossfade.training.arr_coc.compare import RECALL, Scored, compare_automl_vs_arrcoc
from crossfade.training.arr_coc.geometry import PATCHES
from crossfade.training.arr_coc.metrics import Ranking, average_precision, calibration_error
from crossfade.training.arr_coc.queries import Language

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


def test_queries_are_compared_each_alone_and_all_together() -> None:
    """Two classes, four pictures; every number of patches can be counted by hand."""
    language = Language.make(("a", "b"), {}, ("any",), ())
    rows = {query: n for n, query in enumerate(language.queries)}
    a, b = (next(n for q, n in rows.items() if (q.kind, q.place) == (k, 0)) for k in (0, 1))
    rng = np.random.default_rng(0)
    truth = rng.random((4, len(rows), PATCHES)) < 0.3
    good = np.where(truth, 1.0, 0.0) + rng.random(truth.shape) * 0.1
    poor = rng.random(truth.shape)
    scores = dict.fromkeys((AGNOSTIC, LABEL, RULE, CENTRE_RULE), poor) | {ARR_COC: good}
    seen = Scored(scores, truth, good)
    found = compare_automl_vs_arrcoc(seen, seen, language)
    against = found["gains"][f"class_vs_{LABEL}"]
    wrong = [Ranking.of(poor[:, q], truth[:, q]).precision_at(RECALL) for q in (a, b)]
    counts = [int(truth[:, q].sum()) for q in (a, b)]
    taken = sum(n / p for n, p in zip(counts, wrong, strict=True))
    assert against["pooled"] == pytest.approx(taken / sum(counts) - 1)
    assert against["exact"] == pytest.approx(1 / np.mean(wrong) - 1)
    for name in ("gain", "exact", "pooled"):
        assert against[f"{name}_lower"] < against[name] < against[f"{name}_upper"]
