"""Bounds that hold at every look: laws of their states, and false alarms counted by simulation."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.ensemble import sequential
from crossfade.ensemble.sequential import EDGES, Bounds, Latencies, Mean, ratio_bounds, split_values
from crossfade.runtimes.core.errors import InvalidArgument

ALPHAS = st.sampled_from([0.5, 0.05, 0.001])
PAIRS = st.lists(st.sampled_from([-1, 0, 1]), max_size=60)
NUMBERS = st.lists(st.floats(0, 1e9, allow_nan=False), max_size=60)


def mean_of(observations: list[Any]) -> Mean:
    mean = Mean((-1, 0, 1))
    mean.update(observations)
    return mean


# -- laws of the bounds ---------------------------------------------------------------------------


@given(PAIRS, ALPHAS)
def test_a_means_bounds_are_around_its_estimate(pairs: list[int], alpha: float) -> None:
    found = mean_of(pairs).bounds(alpha)
    assert found.count == len(pairs)
    assert -1 <= found.lower <= found.upper <= 1
    if pairs:
        assert found.estimate == pytest.approx(np.mean(pairs))
        assert found.lower <= found.estimate <= found.upper


@given(PAIRS, ALPHAS)
def test_turning_the_signs_turns_the_bounds(pairs: list[int], alpha: float) -> None:
    found, turned = mean_of(pairs).bounds(alpha), mean_of([-p for p in pairs]).bounds(alpha)
    assert found.lower == pytest.approx(-turned.upper, abs=1e-9)


@given(PAIRS, st.data())
def test_a_better_observation_never_lowers_a_bound(pairs: list[int], data: Any) -> None:
    better = [data.draw(st.integers(p, 1)) for p in pairs]
    worse, found = mean_of(pairs).bounds(0.05), mean_of(better).bounds(0.05)
    assert found.lower >= worse.lower - 1e-9
    assert found.upper >= worse.upper - 1e-9


@given(PAIRS)
def test_a_smaller_alpha_gives_wider_bounds(pairs: list[int]) -> None:
    narrow, wide = mean_of(pairs).bounds(0.1), mean_of(pairs).bounds(0.01)
    assert wide.lower <= narrow.lower
    assert narrow.upper <= wide.upper


@given(st.floats(0.001, 0.999), st.floats(0, 1), st.floats(0, 1))
def test_the_values_of_a_split_have_the_difference_as_their_mean(
    share: float, first: float, second: float
) -> None:
    chances = ((1 - share) * first, 0.0, share * second)
    mean = sum(c * v for c, v in zip(chances, split_values(share), strict=True))
    assert mean == pytest.approx(second - first)


def test_without_errors_the_bound_follows_the_rule_of_three() -> None:
    """No error in n requests: at most about 3/n, and not much more for looking all the time."""
    upper = Mean((0, 1), (1000, 0)).bounds(0.05).upper
    assert 0.003 < upper < 0.006


@given(NUMBERS, st.sampled_from([0.05, 0.5, 0.99]), ALPHAS)
def test_a_quantiles_bounds_are_around_it(
    numbers: list[float], quantile: float, alpha: float
) -> None:
    latencies = Latencies()
    latencies.update(numbers)
    found = latencies.bounds(quantile, alpha)
    assert 0 <= found.lower <= found.upper
    if numbers:
        exact = np.quantile(numbers, quantile, method="inverted_cdf")
        assert found.lower <= exact < found.upper * 1.02 + 1e-3
        assert exact <= found.estimate
        if EDGES[0] <= exact < EDGES[-1]:
            assert found.estimate <= exact * 1.02 * (1 + 1e-12)


def test_numbers_outside_the_bins_give_open_bounds() -> None:
    latencies = Latencies()
    latencies.update([0.0] * 1000)
    assert latencies.bounds(0.5, 0.05).lower == 0
    latencies = Latencies()
    latencies.update([1e12] * 1000)
    assert latencies.bounds(0.5, 0.05).upper == math.inf


def test_a_ratio_is_the_quotient_of_the_quantiles() -> None:
    rng = np.random.default_rng(7)
    first, second = Latencies(), Latencies()
    first.update(rng.lognormal(2, 0.3, 20_000))
    second.update(1.5 * rng.lognormal(2, 0.3, 20_000))
    for quantile in (0.5, 0.95):
        found = ratio_bounds(first, second, quantile, 0.05)
        assert 1.35 < found.lower < 1.5 < found.upper < 1.67
        assert found.estimate == pytest.approx(1.5, rel=0.05)
    assert ratio_bounds(first, Latencies(), 0.5, 0.05).upper == math.inf
    assert ratio_bounds(Latencies(), second, 0.5, 0.05).lower == 0


# -- states ---------------------------------------------------------------------------------------


@given(PAIRS, PAIRS)
def test_a_mean_is_the_same_in_parts_and_in_any_order(one: list[int], two: list[int]) -> None:
    whole, parts = mean_of(two + one), mean_of(one)
    parts.add(mean_of(two))
    assert parts.bounds(0.05).count == len(one) + len(two)
    assert bits(parts.bounds(0.05)) == bits(whole.bounds(0.05))


@given(NUMBERS, NUMBERS)
def test_latencies_are_the_same_in_parts(one: list[float], two: list[float]) -> None:
    whole, parts, other = Latencies(), Latencies(), Latencies()
    whole.update(one + two)
    parts.update(two)
    other.update(one)
    parts.add(other)
    assert bits(parts.bounds(0.9, 0.05)) == bits(whole.bounds(0.9, 0.05))


@given(PAIRS, NUMBERS)
def test_a_state_that_was_written_and_read_gives_the_same_bits(
    pairs: list[int], numbers: list[float]
) -> None:
    mean, latencies = mean_of(pairs), Latencies()
    latencies.update(numbers)
    counts = json.loads(json.dumps(mean.counts.tolist()))
    again = json.loads(json.dumps(latencies.counts.tolist()))
    assert bits(Mean((-1, 0, 1), counts).bounds(0.05)) == bits(mean.bounds(0.05))
    assert bits(Latencies(again).bounds(0.5, 0.05)) == bits(latencies.bounds(0.5, 0.05))


def bits(bounds: Bounds) -> tuple[str, str, str, int]:
    return (bounds.estimate.hex(), bounds.lower.hex(), bounds.upper.hex(), bounds.count)


@pytest.mark.parametrize("counts", [(-1, 0, 0), (0.5, 0, 0), (1, 2), (math.nan, 0, 0), ("x", 0, 0)])
def test_a_state_that_is_none_is_refused(counts: Any) -> None:
    with pytest.raises(InvalidArgument):
        Mean((-1, 0, 1), counts)


def test_observations_that_are_none_are_refused_and_change_nothing() -> None:
    mean, latencies = mean_of([1, 0]), Latencies()
    for wrong in (2, 0.5, math.nan):
        with pytest.raises(InvalidArgument):
            mean.update([0, wrong])
    for wrong in (-1.0, math.nan):
        with pytest.raises(InvalidArgument):
            latencies.update([1.0, wrong])
    assert mean.counts.tolist() == [0, 1, 1]
    assert latencies.counts.sum() == 0
    with pytest.raises(InvalidArgument):
        Latencies([1, 2])


# -- what they promise, by simulation -------------------------------------------------------------


def ever(evidence: Any, alpha: float) -> float:
    """The share of runs (rows) in which the evidence is ever enough."""
    return float((evidence >= -math.log(alpha)).any(axis=1).mean())


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.99])
def test_means_looked_at_after_every_request_alarm_seldom_enough(mean: float) -> None:
    alpha, runs = 0.05, 1_000
    coins = np.random.default_rng(3).random((runs, 1_000)) < mean
    seen = np.stack([(~coins).cumsum(1), coins.cumsum(1)], axis=-1)
    up = ever(sequential.log_wealth(seen, (0, 1), np.float64(mean)), alpha)
    down = ever(sequential.log_wealth(seen, (1, 0), np.float64(1 - mean)), alpha)
    assert max(up, down) <= alpha + 3 * math.sqrt(alpha / runs)
    assert max(up, down) > 0, "a bound that never errs is no bound"


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_splits_looked_at_after_every_request_alarm_seldom_enough(share: float) -> None:
    alpha, runs, rate = 0.05, 1_000, 0.1
    rng = np.random.default_rng(4)
    second = rng.random((runs, 1_000)) < share
    hit = rng.random((runs, 1_000)) < rate
    seen = np.stack([~second & hit, ~hit, second & hit], axis=-1).cumsum(axis=1)
    values = np.array(split_values(share))
    unit, nothing = (values - values[0]) / np.ptp(values), -values[0] / np.ptp(values)
    up = ever(sequential.log_wealth(seen, unit, np.float64(nothing)), alpha)
    down = ever(sequential.log_wealth(seen, 1 - unit, np.float64(1 - nothing)), alpha)
    assert max(up, down) <= alpha + 3 * math.sqrt(alpha / runs)
    assert max(up, down) > 0, "a bound that never errs is no bound"


def test_a_quantile_is_inside_its_bounds_at_every_look() -> None:
    alpha, runs, outside = 0.1, 100, 0
    rng = np.random.default_rng(5)
    for _ in range(runs):
        latencies, missed = Latencies(), False
        for _ in range(40):
            latencies.update(rng.lognormal(0, 1, 25))
            found = latencies.bounds(0.5, alpha / 2)
            missed |= not found.lower <= 1.0 <= found.upper
        outside += missed
    assert outside / runs <= alpha + 3 * math.sqrt(alpha / runs)


def test_a_drop_of_five_points_is_found() -> None:
    rng = np.random.default_rng(6)
    found = [
        mean_of(rng.choice([-1, 0, 1], 500, p=[0.075, 0.9, 0.025]).tolist()).bounds(0.05).upper < 0
        for _ in range(100)
    ]
    assert np.mean(found) > 0.7
