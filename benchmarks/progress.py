"""Progress lines, on standard error: standard output belongs to the result."""

from __future__ import annotations

import sys
import time

_START_S = time.monotonic()


def progress(message: str) -> None:
    """Print what is being done, with the seconds since the start."""
    print(f"[{time.monotonic() - _START_S:7.1f} s] {message}", file=sys.stderr, flush=True)
