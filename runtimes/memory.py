"""Gives freed memory back to the operating system when a version is closed."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


def give_back() -> None:
    """Trims the C heap where the C library can (glibc); a few milliseconds, the GIL released.

    Measured with a 57 MB ONNX model: 40 to 120 MB stay with the process after the session is
    gone, 11 MB after a trim. Arena and memory pattern settings make less difference than this.
    """
    if trim := _malloc_trim():
        trim(0)
