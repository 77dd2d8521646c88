"""How long members take, as they did of late."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_SLOW_DOWN: Final = 0.2  # of one observation in the mean
_FORGET: Final = 0.9  # of what is too slow to be asked, each time it is not
_SAFETY: Final = 1.5


class Pace:
    """Smoothed durations of a few members. Thread-safe: a lost update does no harm."""

    def __init__(self, members: int) -> None:
        self._typical_s = [0.0] * members

    def typical_s(self, number: int) -> float:
        """What a member takes; 0 is not known.

        Asking makes it a little less, so that a member that was once slow is tried again.
        """
        found = self._typical_s[number]
        self._typical_s[number] = found * _FORGET
        return found

    def needed_s(self, numbers: Iterable[int]) -> float:
        """What the quickest of these members needs, with something to spare."""
        return _SAFETY * min((self._typical_s[number] for number in numbers), default=0.0)

    def took(self, number: int, seconds: float) -> None:
        """Takes note of one call."""
        before = self._typical_s[number]
        weight = _SLOW_DOWN if before else 1.0
        self._typical_s[number] = before + weight * (seconds - before)
