"""How much memory models may take together, and how room is made for one more."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

from crossfade.runtimes.core.errors import ResourceExhausted
from crossfade.serving.lifecycle.memory_policy import Holding, victims

_log = logging.getLogger(__name__)


class MemoryBudget:
    """Counts what loaded versions take at most, by their runtimes' estimates. Thread-safe.

    Args:
        limit_bytes: for all of them together; ``None`` only counts.
        evicts: makes room by unloading what nobody uses; else what does not fit is refused.
        holdings: the versions that are loaded.
        evict: unloads one of them, if still nobody uses it; whether it did.
    """

    def __init__(
        self,
        limit_bytes: int | None,
        evicts: bool,
        holdings: Callable[[], Sequence[Holding]],
        evict: Callable[[tuple[str, int], str], bool],
    ) -> None:
        self.limit_bytes = limit_bytes
        self._evicts = evicts
        self._holdings = holdings
        self._evict = evict
        self._used_bytes = 0
        self.evictions = 0
        self._lock = threading.Lock()  # of the numbers
        self._making_room = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """What is taken, or is about to be."""
        return self._used_bytes

    @contextlib.contextmanager
    def room(self, name: str, needed_bytes: int, *, evicts: bool = True) -> Iterator[None]:
        """Takes room for a load; it is kept if the body succeeds, until ``give_back``.

        Args:
            name: of the model; none of its other versions makes room for it.
            needed_bytes: at most.
            evicts: whether others may be unloaded for it.

        Raises:
            ResourceExhausted: there is none, and none could be made.
        """
        self._take(name, needed_bytes, evicts and self._evicts)
        try:
            yield
        except BaseException:
            self.give_back(needed_bytes)
            raise

    def give_back(self, freed_bytes: int) -> None:
        """Takes note that a version is closed."""
        with self._lock:
            self._used_bytes -= freed_bytes

    def _take(self, name: str, needed_bytes: int, evicts: bool) -> None:
        with self._making_room:
            if self.limit_bytes is not None:
                self._make_room(name, needed_bytes, self.limit_bytes, evicts)
            with self._lock:
                self._used_bytes += needed_bytes

    def _make_room(self, name: str, needed_bytes: int, limit_bytes: int, evicts: bool) -> None:
        refusal = ResourceExhausted(
            f"the model may take {needed_bytes} bytes, of the memory budget's {limit_bytes}"
            f" {self._used_bytes} are taken; unload a model or raise --memory-budget-bytes"
        )
        if needed_bytes > limit_bytes:
            raise refusal
        tried: set[tuple[str, int]] = set()
        while (excess := self._used_bytes + needed_bytes - limit_bytes) > 0:
            others = [h for h in self._holdings() if h.key[0] != name and h.key not in tried]
            chosen = victims(excess, others) if evicts else None
            if not chosen:
                raise refusal
            key = chosen[0]
            tried.add(key)
            if self._evict(key, f"evicted: its memory went to '{name}'"):
                self.evictions += 1
                _log.info("evicted", extra={"model": key[0], "version": key[1], "for": name})
