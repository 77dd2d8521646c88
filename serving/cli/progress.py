"""Bars for what takes a while."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

_BIG_BYTES: Final = 64 << 20
_WIDTH: Final = 30


def bar(doing: str) -> Callable[[int, int], None] | None:
    """Draws a bar on a terminal's stderr once more than 64 MiB are to be copied.

    Returns:
        What is told how many bytes of how many are there; ``None`` where nobody watches.
    """
    if not sys.stderr.isatty():
        return None
    return lambda done, total: _draw(doing, done, total, 20, "MiB") if total >= _BIG_BYTES else None


def rows(doing: str, done: int, total: int) -> None:
    """Draws a bar of rows on a terminal's stderr; where nobody watches, nothing."""
    if sys.stderr.isatty():
        _draw(doing, done, total, 0, "rows")


def _draw(doing: str, done: int, total: int, shift: int, unit: str) -> None:
    filled = "#" * (_WIDTH * done // total)
    end = "\n" if done == total else ""
    numbers = f"{done >> shift:,} of {total >> shift:,} {unit}"
    sys.stderr.write(f"\r{doing} [{filled:{_WIDTH}}] {numbers}{end}")
    sys.stderr.flush()
