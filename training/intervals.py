"""Confidence intervals of what was measured on a finite number of rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between the ends of its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return dataclasses.asdict(self)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share; the whole of 0..1 without trials."""
    if not trials:
        return Interval(0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    half *= z / (1 + z * z / trials)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mean(values: Array, confidence: float = 0.95) -> Interval:
    """The normal interval of a mean; without end where there are less than two values."""
    count = len(values)
    if count < 2:
        return Interval(float(values.mean()) if count else 0.0, -math.inf, math.inf)
    centre = float(values.mean())
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    half = z * float(values.std(ddof=1)) / math.sqrt(count)
    return Interval(centre, centre - half, centre + half)


def bootstrap(
    statistic: Callable[[Array], float],
    rows: int,
    *,
    confidence: float = 0.95,
    resamples: int = 400,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap of a statistic of rows, which is given their indices.

    Resamples in which the statistic is NaN (one class alone, say) are left out.
    """
    rng = np.random.default_rng(seed)
    found = np.array([statistic(rng.integers(0, rows, rows)) for _ in range(resamples)])
    found = found[np.isfinite(found)]
    value = statistic(np.arange(rows))
    if not len(found):
        return Interval(value, -math.inf, math.inf)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
