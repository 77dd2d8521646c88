"""Which models give way to another one when memory is short. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Holding:
    """One loaded version.

    Attributes:
        key: the model's name and the version.
        memory_bytes: what it takes at most.
        last_used_ns: when it answered last, or was loaded.
        may_go: nobody uses it now.
    """

    key: tuple[str, int]
    memory_bytes: int
    last_used_ns: int
    may_go: bool


def victims(excess_bytes: int, holdings: Sequence[Holding]) -> list[tuple[str, int]] | None:
    """Which versions to unload so that ``excess_bytes`` come free.

    Returns:
        Their keys, the least recently used first and none that is not needed; ``None`` where all
        that may go together are too small, so that none needs to.
    """
    chosen: list[Holding] = []
    for holding in sorted(holdings, key=lambda h: (h.last_used_ns, h.key)):
        if excess_bytes <= 0:
            break
        if holding.may_go and holding.memory_bytes > 0:
            chosen.append(holding)
            excess_bytes -= holding.memory_bytes
    if excess_bytes > 0:
        return None
    # The last one may have made an earlier, smaller one needless.
    spare = -excess_bytes
    needed: list[Holding] = []
    for holding in chosen:
        if holding.memory_bytes <= spare:
            spare -= holding.memory_bytes
        else:
            needed.append(holding)
    return [holding.key for holding in needed]
