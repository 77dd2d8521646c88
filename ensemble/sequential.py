"""Always-valid inference: bounds that hold at every look at once, however often one looks.

Every bound is one-sided. The chance that ``lower`` is ever above the truth, at any of infinitely
many looks, is at most ``alpha``; the same holds for ``upper``. A test inverts them: whoever acts
once a bound has passed a limit errs with probability ``alpha`` at most.

- ``Mean``, bounded means of few values (paired differences, agreement): mixtures of bets with
  constant fractions, the "diversified Kelly" of Waudby-Smith and Ramdas, "Estimating means of
  bounded random variables by betting", JRSS B 86 (2024). The data may drift: the statement is
  about every observation's conditional mean.
- ``split_values``, rates of two arms between which requests are split at random: the same bets
  on values weighted by the inverse of an arm's share (Howard, Ramdas, McAuliffe and Sekhon,
  "Time-uniform, nonparametric, nonasymptotic confidence sequences", Ann. Stat. 49 (2021), on
  treatment effects). Rates may drift; shares are as said.
- ``Latencies``, quantiles: Howard and Ramdas, "Sequential estimation of quantiles", Bernoulli 28
  (2022): whether an observation lies below a quantile is a coin with a known bias, which the
  bets above test.

All states are counts: O(1) memory, updates commute, sums of states are states, and a state that
was written as plain values and read again gives the same bounds to the bit. Objects are not
thread-safe: one writer, or a lock around it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossfade.runtimes.core.errors import InvalidArgument

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Shares of the wealth that are put on "larger": neighbours are a factor 2 apart, so that one near
# the best is always among them. Large shares, which find what matters soonest, begin with more.
FRACTIONS: Final[Floats] = np.geomspace(0.001, 0.98, 11)
_LOG_PRIOR: Final[Floats] = np.log(np.sqrt(FRACTIONS) / np.sqrt(FRACTIONS).sum())
_TRIED: Final = 64  # numbers tried at once; each round narrows the bound by a factor 65
_ROUNDS: Final = 5  # to 1e-9 of the range
EDGES: Final[Floats] = 1e-3 * 1.02 ** np.arange(1164.0)  # up to 1e7
BINS: Final = len(EDGES) + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What is known of a number after ``count`` observations; each side errs with ``alpha``."""

    estimate: float
    lower: float
    upper: float
    count: int


# -- bounded means --------------------------------------------------------------------------------


def log_wealth(counts: ArrayLike, values: ArrayLike, mean: ArrayLike) -> Floats:
    """Evidence that the mean is above ``mean``, as the logarithm of a wealth that began with 1.

    Under every mean up to ``mean`` the wealth is a non-negative supermartingale, so that it ever
    reaches 1/alpha with probability alpha at most (Ville).

    Args:
        counts: how often each value was seen, shape (..., K).
        values: the K values, in [0, 1].
        mean: in (0, 1], shape (...).

    Returns:
        Natural logarithms, shape (...).
    """
    counts, values = np.asarray(counts, np.float64), np.asarray(values, np.float64)
    ratio = values / np.asarray(mean, np.float64)[..., None]  # (..., K)
    growth = np.log1p(FRACTIONS * (ratio[..., None] - 1.0))  # (..., K, F)
    logs = np.einsum("...k,...kf->...f", counts, growth) + _LOG_PRIOR
    highest = logs.max(axis=-1)
    total: Floats = highest + np.log(np.exp(logs - highest[..., None]).sum(axis=-1))
    return total


def lower_mean(counts: ArrayLike, values: ArrayLike, alpha: float) -> float:
    """The lower bound of a mean: ``counts`` (K,) of ``values`` (K,), which are in [0, 1]."""
    counts, values = np.asarray(counts, np.float64), np.asarray(values, np.float64)
    estimate = float(counts @ values / max(counts.sum(), 1))
    return _last_rejected(lambda means: log_wealth(counts, values, means), 0.0, estimate, alpha)


def _last_rejected(
    evidence: Callable[[Floats], Floats], low: float, high: float, alpha: float
) -> float:
    """The largest number in (low, high) against which there is enough evidence, else ``low``.

    ``evidence`` falls from ``low`` to ``high``, where there is too little.
    """
    for _ in range(_ROUNDS if high > low else 0):
        tried = np.linspace(low, high, _TRIED + 2)[1:-1]
        enough = evidence(tried) >= -np.log(alpha)
        rejected = _TRIED if enough.all() else int(np.argmin(enough))
        border = np.concatenate([[low], tried, [high]])
        low, high = float(border[rejected]), float(border[rejected + 1])
    return low


class Mean:
    """The mean of observations that have few values, such as -1, 0 and 1.

    Attributes:
        values: what an observation may be, ascending, at least two.
        counts: how often each was seen.
    """

    def __init__(self, values: Sequence[float] | Floats, counts: ArrayLike | None = None) -> None:
        self.values: Floats = np.asarray(values, np.float64)
        self.counts: Counts = _counts(np.zeros(len(values)) if counts is None else counts)
        if self.counts.shape != self.values.shape:
            raise InvalidArgument("a mean has as many counts as values")

    def update(self, observations: ArrayLike) -> None:
        """Adds observations, all of which must be among ``values``.

        Raises:
            InvalidArgument: one is not; nothing was added.
        """
        seen = np.asarray(observations, np.float64).ravel()
        place = np.minimum(np.searchsorted(self.values, seen), len(self.values) - 1)
        if not np.array_equal(self.values[place], seen):
            raise InvalidArgument(f"observations must be among {self.values.tolist()}")
        self.counts = self.counts + np.bincount(place, minlength=len(self.values))

    def add(self, other: Mean) -> None:
        """Adds what another one has seen."""
        self.counts = self.counts + other.counts

    def bounds(self, alpha: float) -> Bounds:
        """Bounds of the mean, in the unit of ``values``."""
        least, span = self.values[0], self.values[-1] - self.values[0]
        unit = (self.values - least) / span
        total = int(self.counts.sum())
        lower = float(lower_mean(self.counts, unit, alpha))
        upper = 1.0 - float(lower_mean(self.counts, 1.0 - unit, alpha))
        estimate = float(self.counts @ self.values) / total if total else float("nan")
        return Bounds(estimate, float(least + span * lower), float(least + span * upper), total)


def split_values(share: float) -> tuple[float, float, float]:
    """Values whose mean is the second arm's rate minus the first's, of something seldom.

    A request goes to the second arm with probability ``share``, whatever it is. It has the first
    value if it went to the first arm and the thing happened, the last one likewise for the
    second arm, and 0 if the thing did not happen.
    """
    return (-1.0 / (1.0 - share), 0.0, 1.0 / share)


# -- quantiles ------------------------------------------------------------------------------------


class Latencies:
    """Quantiles of positive numbers, kept as counts in bins that are 2 % wide.

    Bounds are rounded outwards to the edge of a bin. Numbers below the first edge (0.001) or
    above the last (10 million) are counted, and give bounds of 0 or infinity.

    Attributes:
        counts: observations of each bin, shape (BINS,).
    """

    def __init__(self, counts: ArrayLike | None = None) -> None:
        self.counts: Counts = _counts(np.zeros(BINS) if counts is None else counts)
        if self.counts.shape != (BINS,):
            raise InvalidArgument(f"latencies are kept in {BINS} bins")

    def update(self, observations: ArrayLike) -> None:
        """Adds observations.

        Raises:
            InvalidArgument: one is negative or no number; nothing was added.
        """
        seen = np.asarray(observations, np.float64).ravel()
        if not np.all(seen >= 0):
            raise InvalidArgument("latencies must be numbers, and not negative")
        place = np.searchsorted(EDGES, seen, side="right")
        self.counts = self.counts + np.bincount(place, minlength=BINS)

    def add(self, other: Latencies) -> None:
        """Adds what another one has seen."""
        self.counts = self.counts + other.counts

    def bounds(self, quantile: float, alpha: float) -> Bounds:
        """Bounds of a quantile, in the unit of the observations; ``quantile`` is in (0, 1)."""
        total = int(self.counts.sum())
        below = np.cumsum(self.counts)[:-1]  # of each edge
        split = np.stack([below, total - below], axis=-1)  # (edges, 2)
        enough = -np.log(alpha)
        # Few below an edge: the quantile is not less than it. Many: it is not more.
        not_less = log_wealth(split, (0.0, 1.0), np.float64(1 - quantile)) >= enough
        not_more = log_wealth(split, (1.0, 0.0), np.float64(quantile)) >= enough
        lower = float(EDGES[np.flatnonzero(not_less)[-1]]) if not_less.any() else 0.0
        upper = float(EDGES[np.argmax(not_more)]) if not_more.any() else float("inf")
        return Bounds(self._estimate(quantile, below, total), lower, upper, total)

    @staticmethod
    def _estimate(quantile: float, below: Counts, total: int) -> float:
        if not total:
            return float("nan")
        edge = int(np.argmax(below >= quantile * total))
        return float(EDGES[edge] if below[edge] >= quantile * total else np.inf)


def ratio_bounds(first: Latencies, second: Latencies, quantile: float, alpha: float) -> Bounds:
    """Bounds of the second arm's quantile over the first's; the arms may depend on each other."""
    one, two = first.bounds(quantile, alpha / 2), second.bounds(quantile, alpha / 2)
    return Bounds(
        two.estimate / one.estimate if one.estimate > 0 else float("nan"),
        two.lower / one.upper,
        two.upper / one.lower if one.lower > 0 else float("inf"),
        min(one.count, two.count),
    )


def _counts(values: ArrayLike) -> Counts:
    """Whole numbers, none negative.

    Raises:
        InvalidArgument: they are not.
    """
    try:
        given = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InvalidArgument("counts must be whole numbers") from None
    if not np.all((given >= 0) & (given == np.floor(given)) & (given < 2**53)):
        raise InvalidArgument("counts must be whole numbers, and not negative")
    return given.astype(np.int64)
