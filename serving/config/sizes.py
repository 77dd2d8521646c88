"""Amounts of memory as people write them."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "": 1,
    **{f"{unit}B": 1000**power for power, unit in enumerate(("", "K", "M", "G", "T"))},
    **{f"{unit}IB": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), 1)},
}
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")


def parse_bytes(text: str | int) -> int:
    """Reads ``4294967296``, ``4GiB``, ``1.5 GB``.

    Raises:
        ValueError: it is no amount of memory, or none at all.
    """
    found = _SIZE.fullmatch(str(text).strip())
    factor = _UNITS.get(found[2].upper()) if found else None
    if found is None or factor is None:
        raise ValueError(f"'{text}' is not an amount of memory, such as 4GiB or 500MB")
    whole, _, fraction = found[1].partition(".")
    size: int = int(whole) * factor + int(fraction or 0) * factor // 10 ** len(fraction)
    if size <= 0:
        raise ValueError(f"'{text}' is no memory at all")
    return size
