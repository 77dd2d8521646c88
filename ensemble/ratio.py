"""Counts who went where, each key once, so that the shares of a split can be checked."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from crossfade.ensemble.split import sample_ratio_p_value

# Keys that are remembered at most; of more, a sample is.
_MAX_KEYS: Final = 1 << 16


class SampleRatio:
    """The counts of one split. Thread-safe; its memory is bounded.

    A key that sends many requests is one observation: its requests all go to one member. Distinct
    keys are counted exactly up to a bound; beyond it a part of all keys is, chosen by a hash that
    has nothing to do with the split's (adaptive sampling: each time the bound is reached, half of
    the keys are forgotten for good).

    Args:
        weights: basis points, as of ``Split``.
        most: keys that are remembered.
    """

    def __init__(self, weights: Sequence[int], most: int = _MAX_KEYS) -> None:
        self._weights = tuple(weights)
        self._most = most
        self._lock = threading.Lock()
        self._draws = [0] * len(self._weights)
        self._keys: dict[int, int] = {}
        self._mask = 0

    def add(self, member: int, key: str | None) -> None:
        """Counts a request that went to ``member``, or its key if that is new."""
        if not key:
            with self._lock:
                self._draws[member] += 1
            return
        mark = hash(key)
        if mark & self._mask or mark in self._keys:
            return
        with self._lock:
            self._keys[mark] = member
            while len(self._keys) > self._most:
                self._mask = self._mask * 2 + 1
                self._keys = {m: at for m, at in self._keys.items() if not m & self._mask}

    def counts(self) -> list[int]:
        """What each member has had: requests without a key, and distinct keys."""
        with self._lock:
            found = list(self._draws)
            for member in self._keys.values():
                found[member] += 1
        return found

    def p_value(self) -> float:
        """How probable counts at least this far from the shares are, if the split works."""
        return sample_ratio_p_value(self.counts(), self._weights)
