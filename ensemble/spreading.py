"""Whether members run one after the other or side by side: whichever was faster of late.

Side by side pays where a member leaves cores idle, or waits for another machine. A member that
uses all cores gains nothing from a neighbour, and a hop to another thread is not free.
"""

from __future__ import annotations

from typing import Final

_TRIES: Final = 3  # of each way before one is chosen
_LOOK_EVERY: Final = 64  # calls, to see whether the other way has become faster
_QUICK_S: Final = 0.0003  # what is over so soon is not worth a thread
_BETTER: Final = 0.9  # of the time that one after the other takes
_WEIGHT: Final = 0.25  # of one call in the mean


class Spreading:
    """Chooses for calls of one form. Thread-safe: a lost update does no harm."""

    __slots__ = ("_calls", "_seconds")

    def __init__(self) -> None:
        self._calls = 0
        self._seconds = [0.0, 0.0]  # one after the other, side by side

    def choose(self) -> bool:
        """Whether the next call is to run its members side by side."""
        calls = self._calls
        self._calls = calls + 1
        serial_s, spread_s = self._seconds
        if 0 < serial_s < _QUICK_S:
            return False
        if calls < 2 * _TRIES:
            return calls % 2 == 1
        faster = spread_s < _BETTER * serial_s
        return not faster if calls % _LOOK_EVERY == 0 else faster

    def took(self, spread: bool, seconds: float) -> None:
        """Takes note of how long a call took."""
        before = self._seconds[spread]
        self._seconds[spread] = before + (_WEIGHT if before else 1.0) * (seconds - before)
