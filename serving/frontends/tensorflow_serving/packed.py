"""Packed integers of protobuf, many at a time."""

from __future__ import annotations

from typing import Final

import numpy as np

from crossfade.runtimes.core.model import Tensor

_SHIFTS: Final = np.arange(0, 70, 7, dtype=np.uint64)
_LAST: Final = 9  # of ten groups of seven bits, it holds bit 63 alone
_AT_ONCE: Final = 64 * 1024  # so many integers become matrices of ten columns at a time


def varints(values: Tensor) -> bytes:
    """Writes integers of any kind, shape [N], as protobuf does: negative ones take ten bytes."""
    if values.size == 0 or (values.min() >= 0 and values.max() < 0x80):
        return values.astype(np.uint8).tobytes()
    chunks = (values[at : at + _AT_ONCE] for at in range(0, values.size, _AT_ONCE))
    return b"".join([_some(chunk) for chunk in chunks])


def _some(values: Tensor) -> bytes:
    kind = np.uint64 if values.dtype.kind == "u" else np.int64
    bits = values.astype(kind).view(np.uint64)[:, None]  # [N, 1]
    rest = bits >> _SHIFTS.clip(max=63)  # [N, 10]; what a group and those after it hold
    used = rest != 0
    used[:, 0] = True
    groups = (rest & np.uint64(0x7F)).astype(np.uint8)
    groups[:, :_LAST] |= used[:, 1:].astype(np.uint8) << 7  # another one follows
    data: bytes = groups[used].tobytes()
    return data
