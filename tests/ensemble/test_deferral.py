"""The watch over a cascade's deferral rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.ensemble.cascade import expected_of
from crossfade.ensemble.deferral import Expected, RateWatch
from crossfade.ensemble.gate import CascadeSample, within_harm


def first_alarm(rates: list[float], batch: int, seed: int, **options: float) -> tuple[str, int]:
    """Which side is said, and after how many rows."""
    rng = np.random.default_rng(seed)
    watch = RateWatch(Expected(0.18, 0.22), **options)
    for number, rate in enumerate(rates):
        side = watch.update(int(rng.binomial(batch, rate)), batch)
        if side:
            return side, (number + 1) * batch
    return "", len(rates) * batch


@pytest.mark.parametrize("batch", [1, 32])
def test_false_alarms_are_as_rare_as_promised(batch: int) -> None:
    # 8 runs of 10,000 rows at the edge of the range, where one alarm in 50,000 rows is allowed.
    alarms = [
        bool(first_alarm([0.22] * (10_000 // batch), batch, seed, rows_per_false_alarm=50_000)[0])
        for seed in range(8)
    ]

    assert sum(alarms) <= 3


@pytest.mark.parametrize(("rate", "side"), [(0.4, "above"), (0.05, "below")])
def test_a_drift_is_found_soon_however_long_all_was_well(rate: float, side: str) -> None:
    long = 20_000 // 8
    found = [first_alarm([0.2] * long + [rate] * 500, 8, seed) for seed in range(3)]

    assert all(said == side for said, _ in found)
    assert max(rows for _, rows in found) < 20_000 + 800


def test_it_starts_anew_after_an_alarm() -> None:
    watch = RateWatch(Expected(0.1, 0.2))

    assert watch.update(1000, 1000) == "above"
    assert watch.update(0, 1) is None
    assert watch.update(0, 0) is None


@given(st.integers(1, 2000), st.floats(0, 1))
def test_the_range_has_the_rate(rows: int, share: float) -> None:
    hits = round(share * rows)
    found = Expected.of(hits, rows)

    assert 0 <= found.low <= hits / rows <= found.high <= 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_certain_rates_are_watched_too(low: float, high: float) -> None:
    watch = RateWatch(Expected(low, high))
    expected = 500 if low else 0

    assert watch.update(expected, 500) is None
    alarms = {watch.update(500 - expected, 500) for _ in range(20)} - {None}
    assert bool(alarms) == (low == high)


def test_what_a_gate_was_solved_for() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 2000)
    stage = np.stack([p, 1 - p], axis=1)
    labels = (rng.uniform(size=2000) > p).astype(np.intp)
    sure = np.eye(2)[labels] * 0.98 + 0.01
    report = within_harm(CascadeSample.of([stage, sure], labels, (1, 10)), 0.05)
    (expected,) = expected_of(report)

    assert expected.low < report.reach[1] < expected.high
