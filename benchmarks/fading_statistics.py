"""How often a fade alarms for nothing, and how soon it finds what is worse: by simulation.

    python -m crossfade.benchmarks.fading_statistics

Every run is looked at after every request. The last line of the output is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crossfade.benchmarks.progress import progress
from crossfade.ensemble.sequential import log_wealth, split_values

Rng = np.random.Generator
Stops = NDArray[np.int64]  # the request at which each run alarmed, NEVER where it did not
NEVER: Final = np.iinfo(np.int64).max

ALPHA: Final = 0.05
_LOOKS: Final = 50  # looks that are computed together
_THRESHOLDS: Final = 64
_Z_ALPHA, _Z_POWER = 1.6449, 0.8416  # of 5 %, one-sided, and of 80 % power
# An accuracy of 0.90 against 0.85; the members disagree on whether they are right for 10 % of
# the requests, as a model and its fine-tuned successor do, or for more.
_DROP: Final = 0.05
_ACCURACY: Final = 0.90
_FADE_STEPS, _FADE_COMPARISONS = 6, 5  # of the usual plan


def measure(runs: int = 2_000, requests: int = 5_000, seed: int = 0) -> dict[str, Any]:
    """Simulates it all.

    Args:
        runs: of each simulation.
        requests: of each run, and looks.
        seed: of the random numbers.

    Returns:
        ``aa_false_alarm_rate``, the largest share of runs that alarmed though the members were
        equal, over all statistics, each with the whole alpha of 5 %; ``power_5pt``, the share
        of runs in which a drop in accuracy of five points was found in labelled pairs before
        the size of a fixed sample of two groups; and the numbers beside them.
    """
    rng = np.random.default_rng(seed)
    alone = _equal(rng, runs, requests)
    progress("equal members, a whole fade")
    fade = _equal_fade(rng, runs, max(requests // 5, 1))
    return {
        "aa_runs": runs,
        "aa_looks": requests,
        "aa_false_alarm_rate": max(alone.values()),
        "aa_by_statistic": alone,
        "aa_fade_false_alarm_rate": fade,
        **_power(rng, runs),
    }


def _equal(rng: Rng, runs: int, requests: int) -> dict[str, float]:
    found = {}
    for disagreement in (0.1, 0.02):
        progress(f"equal members, pairs that differ in {disagreement:.0%}")
        half = disagreement / 2
        stops = paired_stops(rng, (runs, requests), worse=half, better=half)
        found[f"pairs_{disagreement:g}"] = _alarmed(stops)
    for name, rates, share in (
        ("split_accuracy_0.5", (0.9, 0.9), 0.5),
        ("split_errors_0.05", (0.99, 0.99), 0.05),
    ):
        progress(f"equal members, {name}")
        found[name] = _alarmed(split_stops(rng, (runs, requests), rates, share))
    for quantile in (0.5, 0.99):
        progress(f"equal members, latency p{100 * quantile:g}")
        stops = latency_stops(rng, (runs, requests), quantile, slower=1.0, limit=1.0)
        found[f"latency_p{100 * quantile:g}"] = _alarmed(stops)
    return found


def _equal_fade(rng: Rng, runs: int, requests: int) -> float:
    """Any comparison of any step, with their shares of alpha; agreement cannot alarm here."""
    alpha = ALPHA / (_FADE_STEPS * _FADE_COMPARISONS)
    size = (runs * _FADE_STEPS, requests)
    stops = [
        paired_stops(rng, size, worse=0.05, better=0.05, alpha=alpha),
        paired_stops(rng, size, worse=0.01, better=0.01, alpha=alpha),
        latency_stops(rng, size, 0.5, slower=1.0, limit=1.0, alpha=alpha),
        latency_stops(rng, size, 0.99, slower=1.0, limit=1.0, alpha=alpha),
    ]
    by_fade = np.minimum.reduce(stops).reshape(runs, _FADE_STEPS)
    return _alarmed(by_fade.min(axis=1))


def _power(rng: Rng, runs: int) -> dict[str, Any]:
    fixed = fixed_size_of_two_groups(_ACCURACY, _ACCURACY - _DROP)
    found: dict[str, Any] = {"fixed_size_of_two_groups": fixed}
    by_disagreement = {}
    for disagreement in (0.1, 0.15, 0.2):
        progress(f"five points worse, pairs that differ in {disagreement:.0%}")
        worse, better = (disagreement + _DROP) / 2, (disagreement - _DROP) / 2
        stops = paired_stops(rng, (runs, 4 * fixed), worse=worse, better=better)
        paired = fixed_size_of_pairs(disagreement, _DROP)
        by_disagreement[f"{disagreement:g}"] = {
            "found_before_fixed_size_of_two_groups": _alarmed(stops, fixed),
            "median_over_fixed_size": round(float(np.median(stops)) / fixed, 3),
            "pairs_for_80_percent": _size_for(stops, 0.8),
            "fixed_size_of_pairs": paired,
            "found_before_fixed_size_of_pairs": _alarmed(stops, paired),
        }
    found["power_5pt"] = by_disagreement["0.1"]["found_before_fixed_size_of_two_groups"]
    found["power_5pt_by_disagreement"] = by_disagreement
    progress("five points worse, a split in halves")
    rates = (_ACCURACY, _ACCURACY - _DROP)
    stops = split_stops(rng, (runs, 10 * fixed), rates, 0.5)
    found["power_5pt_split"] = {
        "found_before_fixed_size": _alarmed(stops, 2 * fixed),
        "requests_for_80_percent": _size_for(stops, 0.8),
        "fixed_size_of_both_groups": 2 * fixed,
    }
    for quantile, slower, limit in ((0.5, 1.3, 1.1), (0.99, 1.8, 1.1)):
        progress(f"p{100 * quantile:g} slower by {slower - 1:.0%}, {limit - 1:.0%} allowed")
        stops = latency_stops(rng, (runs, 8_000), quantile, slower=slower, limit=limit)
        found[f"power_latency_p{100 * quantile:g}"] = {
            "slower": slower,
            "allowed": limit,
            "found_in_8000": _alarmed(stops),
            "requests_for_80_percent": _size_for(stops, 0.8),
        }
    return found


# -- runs, many at once ---------------------------------------------------------------------------


def paired_stops(
    rng: Rng, size: tuple[int, int], *, worse: float, better: float, alpha: float = ALPHA
) -> Stops:
    """When each run shows that the candidate is worse, from pairs.

    Args:
        rng: random numbers.
        size: runs, requests of each.
        worse: share of pairs in which only the primary is right.
        better: share of pairs in which only the candidate is right.
        alpha: of the test.
    """
    runs, requests = size
    stops = np.full(runs, NEVER)
    seen = np.zeros((runs, 1, 3), np.int64)
    for start in range(0, requests, _LOOKS):
        looks = min(_LOOKS, requests - start)
        drawn = rng.random((runs, looks))
        outcome = np.stack([drawn < worse, drawn >= worse + better], axis=-1)
        both = np.concatenate([outcome, ~outcome.any(axis=-1, keepdims=True)], axis=-1)
        counts = seen + both.cumsum(axis=1)  # worse, same, better
        # The wealth of a bet on "worse", against a difference of nothing.
        found = log_wealth(counts, (1.0, 0.5, 0.0), np.float64(0.5)) >= -math.log(alpha)
        _note(stops, found, start)
        seen = counts[:, -1:]
    return stops


def split_stops(
    rng: Rng,
    size: tuple[int, int],
    rates: tuple[float, float],
    share: float,
    *,
    alpha: float = ALPHA,
) -> Stops:
    """When each run shows that the candidate's rate is lower, from requests asked of one member.

    Args:
        rng: random numbers.
        size: runs, requests of each.
        rates: of success, at the primary and the candidate.
        share: of the requests that go to the candidate.
        alpha: of the test.
    """
    runs, requests = size
    stops = np.full(runs, NEVER)
    seen = np.zeros((runs, 1, 3), np.int64)
    values = np.array(split_values(share))  # of failures
    unit, nothing = (values - values[0]) / np.ptp(values), np.float64(-values[0] / np.ptp(values))
    for start in range(0, requests, _LOOKS):
        looks = min(_LOOKS, requests - start)
        to_candidate = rng.random((runs, looks)) < share
        failed = rng.random((runs, looks)) >= np.where(to_candidate, rates[1], rates[0])
        outcome = np.stack([failed & ~to_candidate, ~failed, failed & to_candidate], axis=-1)
        counts = seen + outcome.cumsum(axis=1)
        _note(stops, log_wealth(counts, unit, nothing) >= -math.log(alpha), start)
        seen = counts[:, -1:]
    return stops


def latency_stops(
    rng: Rng,
    size: tuple[int, int],
    quantile: float,
    *,
    slower: float,
    limit: float,
    alpha: float = ALPHA,
) -> Stops:
    """When each run shows that a quantile of the candidate is above ``limit`` times the primary's.

    Latencies are lognormal; both members answer every request.

    Args:
        rng: random numbers.
        size: runs, requests of each.
        quantile: which one.
        slower: the true factor between the members' latencies.
        limit: the factor that is allowed.
        alpha: of the test.
    """
    runs, requests = size
    few, many = critical_counts(requests, quantile, alpha / 2)
    # Logarithms of the primary's latencies are standard normal: thresholds around its quantile.
    spread = 1.0 if quantile < 0.9 else 1.6
    middle = float(np.quantile(rng.standard_normal(200_000), quantile))
    scale = 0.5  # of the logarithms
    edges = np.linspace(middle - spread, middle + spread, _THRESHOLDS)
    shift = math.log(slower / limit) / scale
    stops = np.full(runs, NEVER)
    below = np.zeros((2, runs, _THRESHOLDS), np.int32)
    for request in range(requests):
        drawn = rng.standard_normal((2, runs), dtype=np.float32)
        drawn[1] += shift
        below += drawn[..., None] < edges
        # Few of the candidate's are below an edge, many of the primary's are.
        found = ((below[1] <= few[request]) & (below[0] >= many[request])).any(axis=1)
        stops[found & (stops == NEVER)] = request + 1
    return stops


def critical_counts(requests: int, quantile: float, alpha: float) -> tuple[Stops, Stops]:
    """For 1 … ``requests`` observations: how few below x show that the quantile is not below it.

    Returns:
        The largest such count, -1 where none is small enough; and the smallest count that shows
        that the quantile is not above x, more than there are where none is large enough.
    """
    totals = np.arange(1, requests + 1)
    few = _largest(totals, (0.0, 1.0), 1 - quantile, alpha)
    many = totals - _largest(totals, (0.0, 1.0), quantile, alpha)
    return few, many


def _largest(totals: Stops, values: tuple[float, float], mean: float, alpha: float) -> Stops:
    """The largest count of ``values[0]`` that is enough evidence for more than ``mean``."""
    low, high = np.full_like(totals, -1), totals + 1  # enough, not enough
    while np.any(high - low > 1):
        middle = (low + high) // 2
        counts = np.stack([np.maximum(middle, 0), totals - np.maximum(middle, 0)], axis=-1)
        enough = log_wealth(counts, values, np.float64(mean)) >= -math.log(alpha)
        enough &= middle <= totals
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
        high = np.maximum(high, low + 1)
    return low


def _note(stops: Stops, found: NDArray[np.bool_], start: int) -> None:
    first = np.where(found.any(axis=1), start + found.argmax(axis=1) + 1, NEVER)
    np.minimum(stops, first, out=stops)


# -- sizes ----------------------------------------------------------------------------------------


def fixed_size_of_two_groups(one: float, two: float) -> int:
    """Requests of each group for a z-test of two rates: 5 %, one-sided, with 80 % power."""
    variance = one * (1 - one) + two * (1 - two)
    return math.ceil((_Z_ALPHA + _Z_POWER) ** 2 * variance / (one - two) ** 2)


def fixed_size_of_pairs(disagreement: float, difference: float) -> int:
    """Pairs for McNemar's test: 5 %, one-sided, with 80 % power."""
    spread = math.sqrt(disagreement - difference**2)
    needed = (_Z_ALPHA * math.sqrt(disagreement) + _Z_POWER * spread) ** 2 / difference**2
    return math.ceil(needed)


def _alarmed(stops: Stops, before: int = NEVER - 1) -> float:
    return round(float((stops <= before).mean()), 4)


def _size_for(stops: Stops, power: float) -> int | None:
    found = int(np.sort(stops)[math.ceil(power * len(stops)) - 1])
    return None if found == NEVER else found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--requests", type=int, default=5_000, help="of a run of equal members")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found: Mapping[str, Any] = measure(arguments.runs, arguments.requests, arguments.seed)
    progress("done")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
