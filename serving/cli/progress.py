"""A bar for copies that take a while."""

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
    return lambda done, total: _draw(doing, done, total)


def _draw(doing: str, done: int, total: int) -> None:
    if total < _BIG_BYTES:
        return
    filled = "#" * (_WIDTH * done // total)
    end = "\n" if done == total else ""
    sys.stderr.write(f"\r{doing} [{filled:{_WIDTH}}] {done >> 20:,} of {total >> 20:,} MiB{end}")
    sys.stderr.flush()
