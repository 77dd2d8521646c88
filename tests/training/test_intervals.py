"""Intervals against SciPy's, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from crossfade.training import intervals


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (1, 5), (5, 5), (37, 100), (999, 1000)])
def test_wilson(successes: int, trials: int) -> None:
    wanted = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    found = intervals.wilson(successes, trials)
    assert found.value == successes / trials
    np.testing.assert_allclose([found.low, found.high], [wanted.low, wanted.high], atol=1e-12)


def test_without_data_an_interval_says_nothing() -> None:
    assert intervals.wilson(0, 0) == intervals.Interval(0.0, 0.0, 1.0)
    assert intervals.mean(np.array([3.0])) == intervals.Interval(3.0, -math.inf, math.inf)
    never = intervals.bootstrap(lambda _: math.nan, 3)
    assert (never.low, never.high) == (-math.inf, math.inf)


def test_intervals_hold_what_they_should() -> None:
    rng = np.random.default_rng(0)
    held = {"mean": 0, "bootstrap": 0}
    for run in range(200):
        values = rng.exponential(size=120)
        mean = intervals.mean(values)
        held["mean"] += mean.low <= 1 <= mean.high
        median = intervals.bootstrap(
            lambda rows, v=values: float(np.median(v[rows])), len(values), resamples=200, seed=run
        )
        held["bootstrap"] += median.low <= math.log(2) <= median.high
    assert 0.88 <= held["mean"] / 200 <= 0.99
    assert 0.88 <= held["bootstrap"] / 200 <= 0.99
