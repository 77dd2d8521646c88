"""Whether members run one after the other or side by side: whichever was faster of late.

Side by side pays where a member leaves cores idle, or waits for another machine. A member that
uses all cores gains nothing from a neighbour, and a hop to another thread is not free. Where other
calls keep the cores busy, two threads for one call are faster for this call alone, at the others'
cost: members that compute then run one after the other, however it looks from here.
"""

from __future__ import annotations

from typing import Final

_TRIES: Final = 3  # of each way before one is chosen
_LOOK_EVERY: Final = 64  # calls, to see whether the other way has become faster
_QUICK_S: Final = 0.0003  # what is over so soon is not worth a thread
_BETTER: Final = 0.9  # of the time that one after the other takes
_WEIGHT: Final = 0.25  # of one call in the mean
_COMPUTES: Final = 0.5  # of its time that a thread works, and does not wait for somebody else


class Spreading:
    """Chooses for calls of one form. Thread-safe: a lost update does no harm."""

    __slots__ = ("_calls", "_seconds", "_working")

    def __init__(self) -> None:
        self._calls = 0
        self._seconds = [0.0, 0.0]  # one after the other, side by side
        self._working = 0.0  # share of a call's time that its thread works

    def choose(self, crowded: bool = False) -> bool:
        """Whether the next call is to run its members side by side.

        Args:
            crowded: other calls keep all cores busy.
        """
        if crowded and self._working > _COMPUTES:
            return False
        calls = self._calls
        self._calls = calls + 1
        serial_s, spread_s = self._seconds
        if 0 < serial_s < _QUICK_S:
            return False
        if calls < 2 * _TRIES:
            return calls % 2 == 1
        faster = spread_s < _BETTER * serial_s
        return not faster if calls % _LOOK_EVERY == 0 else faster

    def took(self, spread: bool, seconds: float, cpu_s: float, crowded: bool = False) -> None:
        """Takes note of how long a call took, and how long its thread worked."""
        if not (spread or crowded) and seconds:
            weight = _WEIGHT if self._working else 1.0
            self._working += weight * (cpu_s / seconds - self._working)
        before = self._seconds[spread]
        self._seconds[spread] = before + (_WEIGHT if before else 1.0) * (seconds - before)
