"""Watches whether a cascade still passes on as many rows as its gate was solved for."""

from __future__ import annotations

import dataclasses
import threading
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.tails import binomial_upper

# Rows between two false alarms, on average and at least.
ROWS_PER_FALSE_ALARM: Final = 1_000_000
_SHARES: Final = np.geomspace(0.01, 0.9, 8)  # of a bettor's wealth
_LEVEL: Final = 0.01  # the expected rate is outside its range so often


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """The range that a rate was measured to be in."""

    low: float
    high: float

    @classmethod
    def of(cls, hits: int, rows: int) -> Self:
        """Of ``hits`` among ``rows``: Clopper-Pearson, 99 %."""
        each = _LEVEL / 2
        low = 1 - binomial_upper(rows - hits, rows, each)
        return cls(low, binomial_upper(hits, rows, each))


class RateWatch:
    """Says when a rate leaves the range that it was expected in. Thread-safe.

    An e-detector (Shin, Ramdas and Rinaldo, 2023) in the form of Shiryaev and Roberts: at every
    update a new gambler starts with 1 and bets against "the rate is at most (at least) so high";
    the sum of their fortunes reaches N no sooner than after N updates on average while the claim
    is true, and grows exponentially once it is not, however long it has been true before. Bets are
    fixed shares of the wealth, from small (slow drifts) to large (sudden ones).

    Args:
        expected: the range.
        rows_per_false_alarm: on average and at least.
    """

    def __init__(
        self, expected: Expected, rows_per_false_alarm: float = ROWS_PER_FALSE_ALARM
    ) -> None:
        self.expected = expected
        # The fortunes of both sides less two for each update gain nothing on average.
        self._needed = 2 * rows_per_false_alarm
        self._lock = threading.Lock()
        self._above = _Side(expected.high)
        self._below = _Side(1 - expected.low)

    def update(self, hits: int, rows: int) -> str | None:
        """Adds rows of which ``hits`` were passed on.

        Returns:
            ``above`` or ``below`` if it is known by now that the rate is; it then starts anew.
        """
        if not rows:
            return None
        with self._lock:
            above = self._above.update(hits, rows - hits)
            below = self._below.update(rows - hits, hits)
            if max(above, below) < self._needed:
                return None
            self._above.reset()
            self._below.reset()
        return "above" if above >= below else "below"


class _Side:
    """Gamblers against "of two kinds of rows, the first is at most this share"."""

    def __init__(self, most: float) -> None:
        # A rate of nearly 1 cannot be exceeded: bets stay finite, and never win.
        share = min(max(most, 1e-6), 1 - 1e-6)
        # One row of the first kind multiplies by 1 + s (1 / share - 1), the other by 1 - s.
        self._hit: npt.NDArray[np.float64] = np.log1p(_SHARES * (1 / share - 1))
        self._miss: npt.NDArray[np.float64] = np.log1p(-_SHARES)
        self._logs = np.full(len(_SHARES), -np.inf)

    def update(self, hits: int, misses: int) -> float:
        """The mean fortune of all gamblers after these rows."""
        grown = np.logaddexp(self._logs, 0.0) + hits * self._hit + misses * self._miss
        self._logs = np.minimum(grown, 700.0)  # the largest exponent
        return float(np.exp(self._logs).mean())

    def reset(self) -> None:
        """Sends all gamblers home."""
        self._logs = np.full(len(_SHARES), -np.inf)
