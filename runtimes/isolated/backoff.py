"""How long to wait before a worker that ended is started again. Pure."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 30.0
# A worker that has lived so long was not ended by what ended the one before it.
STEADY_S: Final = 60.0


def next_failures(failures: int, lived_s: float) -> int:
    """Ends in a row, with one that came ``lived_s`` seconds after the worker was up."""
    return 1 if lived_s >= STEADY_S else failures + 1


def pause_s(failures: int) -> float:
    """Seconds to wait after so many ends in a row: doubled each time, up to half a minute."""
    return min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 16))
