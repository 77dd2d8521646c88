"""The simulation of fades: that it simulates what the server computes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from crossfade.benchmarks import fading_statistics
from crossfade.benchmarks.fading_statistics import (
    NEVER,
    critical_counts,
    fixed_size_of_pairs,
    fixed_size_of_two_groups,
    latency_stops,
    paired_stops,
    split_stops,
)
from crossfade.ensemble.sequential import EDGES, Latencies, Mean


def test_its_result_is_one_line_of_json_with_the_promised_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--runs", "20", "--requests", "100"])
    fading_statistics.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["aa_runs"] == 20
    assert 0 <= found["aa_false_alarm_rate"] <= 0.3
    assert found["power_5pt"] > 0.5


@pytest.mark.parametrize("quantile", [0.5, 0.99])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_its_critical_counts_are_those_of_the_bounds(quantile: float, alpha: float) -> None:
    few, many = critical_counts(3_000, quantile, alpha)
    for total in (1, 10, 400, 3_000):
        for below in {
            *range(0, total + 1, 37),
            few[total - 1],
            few[total - 1] + 1,
            many[total - 1],
        }:
            if not 0 <= below <= total:
                continue
            latencies = Latencies()  # all below one edge, or at it
            latencies.update(np.where(np.arange(total) < below, EDGES[499], EDGES[500]))
            found = latencies.bounds(quantile, alpha)
            assert (found.lower >= EDGES[500]) == (below <= few[total - 1])
            assert (found.upper <= EDGES[500]) == (below >= many[total - 1])


def test_pairs_stop_when_the_bound_says_so() -> None:
    (stop,) = paired_stops(np.random.default_rng(1), (1, 1_000), worse=0.2, better=0.05)
    # The same numbers once more, one request after the other.
    rng, mean = np.random.default_rng(1), Mean((-1, 0, 1))
    drawn = np.concatenate([rng.random((1, 50))[0] for _ in range(20)])
    outcomes = np.where(drawn < 0.2, -1, np.where(drawn < 0.25, 1, 0))

    def shown(outcome: int) -> bool:
        mean.update(outcome)
        return mean.bounds(0.05).upper < 0

    assert stop == next(n for n, outcome in enumerate(outcomes, start=1) if shown(outcome)) < 1_000


def test_what_is_worse_is_found_and_what_is_not_seldom() -> None:
    rng, size = np.random.default_rng(2), (100, 1_500)
    assert (paired_stops(rng, size, worse=0.15, better=0.05) < NEVER).mean() > 0.9
    assert (split_stops(rng, size, (0.9, 0.7), 0.5) < NEVER).mean() > 0.9
    assert (latency_stops(rng, size, 0.5, slower=1.5, limit=1.1) < NEVER).mean() > 0.9
    assert (split_stops(rng, size, (0.7, 0.9), 0.5) < NEVER).mean() < 0.05
    assert (latency_stops(rng, size, 0.5, slower=1.0, limit=1.1) < NEVER).mean() < 0.05


def test_fixed_sizes_are_those_of_the_textbook() -> None:
    """n = (1.645 + 0.842)² (0.9 x 0.1 + 0.85 x 0.15) / 0.05²; McNemar as in Connor (1987)."""
    assert fixed_size_of_two_groups(0.90, 0.85) == 538
    assert fixed_size_of_pairs(0.10, 0.05) == 246
