"""Copies of requests for other members, run outside the requests' way; and what came of them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from crossfade.ensemble.asking import Ask
from crossfade.ensemble.comparison import Comparer, Comparison
from crossfade.ensemble.measures import Histogram, Measure, Tally
from crossfade.ensemble.observing import Observer, Outcome, Pair, tell_pair
from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import InferRequest, Tensor

_log = logging.getLogger(__name__)
# The last level there is: where a model's queue has priorities, its own requests go first.
_LAST: Final = 2**31 - 1
_CLOSE_S: Final = 5.0
_BOUNDS: Final = {
    "score_difference": (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0),
    "overlap": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    "rank_correlation": (-0.5, 0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999),
    "latency_ratio": (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0),
}
_HELP: Final = {
    "score_difference": "The largest difference of two real numbers of a pair",
    "overlap": "Mean intersection over union of a pair's boxes",
    "rank_correlation": "Spearman's, of a pair's class scores",
    "latency_ratio": "The mirror's latency over the answering member's",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much is mirrored at most.

    Attributes:
        requests: copies that wait; one more is dropped.
        bytes: of the inputs of those, together.
        workers: copies that run at the same time.
        timeout_s: how long a copy may take once it runs.
        niceness: added to the workers' own, where the system has one for each thread.
        kept: comparisons that are remembered.
    """

    requests: int = 64
    bytes: int = 64 * 1024 * 1024
    workers: int = 1
    timeout_s: float = 30.0
    niceness: int = 10
    kept: int = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """What is remembered of a pair; no tensors.

    Attributes:
        members: names of the two, in the order of their places.
        errors: codes; ``None`` where a member answered.
    """

    request_id: str
    members: tuple[str, str]
    answered_by: str
    errors: tuple[str | None, str | None]
    latency_ms: tuple[float, float]
    comparison: Comparison


@dataclasses.dataclass(frozen=True, slots=True)
class _Copy:
    request: InferRequest
    answered: Outcome
    member: int
    ask: Ask
    size: int


class Mirror:
    """Runs copies of requests at members that did not answer them, and compares. Thread-safe.

    A copy that finds the queue full is dropped and counted. Nothing here can fail a request or
    make it wait.

    Attributes:
        comparer: compares the two answers; may be replaced.

    Args:
        names: of all members, in order.
        comparer: see above.
        observers: are told of each pair.
        limits: how much is mirrored at most.
    """

    def __init__(
        self,
        names: Sequence[str],
        comparer: Comparer,
        observers: Sequence[Observer] = (),
        limits: Limits | None = None,
    ) -> None:
        self._names = names
        self.comparer = comparer
        self._observers = observers
        self._limits = limits or Limits()
        self._waiting: deque[_Copy] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        self._kept: deque[Kept] = deque(maxlen=self._limits.kept)
        self._pairs, self._dropped = Tally(), Tally()
        self._seen: dict[str, dict[tuple[str, ...], Histogram]] = {
            kind: {(name,): Histogram(bounds) for name in names} for kind, bounds in _BOUNDS.items()
        }
        self._threads: list[threading.Thread] = []

    def offer(self, request: InferRequest, answered: Outcome, ask: Ask) -> bool:
        """Has the other members run a copy of a request that one has answered.

        Args:
            request: as it was answered.
            answered: by whom and how.
            ask: the members, from another thread and later.

        Returns:
            Whether any of them will; they do not where the queue is full.
        """
        taken = False
        copied: InferRequest | None = None
        size = sum(array.nbytes for array in request.inputs.values())
        for member in range(len(self._names)):
            if member == answered.member:
                continue
            if self._is_full(size):
                self._dropped.add(self._names[member])
                continue
            if copied is None:
                copied = _copy(request)
            with self._changed:
                if self._closed:
                    return taken
                self._start()
                self._waiting.append(_Copy(copied, answered, member, ask, size))
                self._bytes += size
                self._changed.notify()
            taken = True
        return taken

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The last comparisons, the oldest first."""
        return tuple(self._kept)

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``."""
        yield Measure(
            "shadow_pairs",
            "counter",
            "Requests that two members answered, by how the answers compare",
            ("member", "result"),
            self._pairs.values(),
        )
        dropped = {(name,): 0.0 for name in self._names[1:]} | self._dropped.values()
        yield Measure(
            "shadow_dropped",
            "counter",
            "Copies that were not run: too many waited",
            ("member",),
            dropped,
        )
        yield Measure(
            "shadow_waiting", "gauge", "Copies that wait", (), {(): float(len(self._waiting))}
        )
        for kind, seen in self._seen.items():
            # The first member has copies only where others answer.
            copied = {(name,): seen[name,] for name in self._names if self._has_copies(name)}
            yield Measure(f"shadow_{kind}", "histogram", _HELP[kind], ("member",), copied)

    def wait_idle(self, timeout_s: float) -> bool:
        """Waits until every copy has been compared; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._running), timeout_s)

    def close(self) -> None:
        """Drops what waits, and ends the workers; one that still runs is waited for briefly."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        until_s = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def _has_copies(self, name: str) -> bool:
        return name != self._names[0] or any(member == name for member, _ in self._pairs.values())

    def _start(self) -> None:
        """Starts the workers, with the first copy that there is."""
        while len(self._threads) < self._limits.workers:
            thread = threading.Thread(target=self._work, name="mirror", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _is_full(self, size: int) -> bool:
        limits = self._limits
        return len(self._waiting) >= limits.requests or (
            bool(self._waiting) and self._bytes + size > limits.bytes
        )

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            thread = threading.get_native_id()
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, now + self._limits.niceness)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                copy = self._waiting.popleft()
                self._bytes -= copy.size
                self._running += 1
            try:
                self._run(copy)
            except Exception:
                _log.exception("a copy of a request could not be compared")
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

    def _run(self, copy: _Copy) -> None:
        deadline_s = time.monotonic() + self._limits.timeout_s
        request = dataclasses.replace(copy.request, deadline_s=deadline_s)
        try:
            (mirrored,) = copy.ask(copy.member, (request,))
        except Exception as error:
            hidden = Internal.hide(error, _log, "a copy of a request")
            mirrored = Outcome(copy.member, hidden, 0.0)
        first, second = sorted((copy.answered, mirrored), key=lambda outcome: outcome.member)
        comparison = self.comparer(first.result, second.result)
        pair = Pair(copy.request, first, second, copy.answered.member, comparison)
        self._keep(pair, copy.answered, mirrored)
        tell_pair(self._observers, pair)

    def _keep(self, pair: Pair, answered: Outcome, mirrored: Outcome) -> None:
        name = self._names[mirrored.member]
        self._pairs.add(name, _result(answered, mirrored, pair.comparison))
        seen: dict[str, float | None] = {
            kind: getattr(pair.comparison, kind) for kind in _BOUNDS if kind != "latency_ratio"
        }
        if not (answered.failed or mirrored.failed) and answered.latency_ms > 0:
            seen["latency_ratio"] = mirrored.latency_ms / answered.latency_ms
        for kind, value in seen.items():
            if value is not None:
                self._seen[kind][name,].observe(value)
        both = (pair.first, pair.second)
        self._kept.append(
            Kept(
                pair.request.id,
                (self._names[both[0].member], self._names[both[1].member]),
                self._names[pair.answered_by],
                (_code(both[0]), _code(both[1])),
                (both[0].latency_ms, both[1].latency_ms),
                pair.comparison,
            )
        )


def _result(answered: Outcome, mirrored: Outcome, comparison: Comparison) -> str:
    if answered.failed or mirrored.failed:
        if answered.failed and mirrored.failed:
            return "both_failed"
        return "mirror_failed" if mirrored.failed else "primary_failed"
    return "agreed" if comparison.agreed else "differed"


def _code(outcome: Outcome) -> str | None:
    return outcome.result.code.value if isinstance(outcome.result, CrossfadeError) else None


def _copy(request: InferRequest) -> InferRequest:
    """A request that outlives its call: no caller, and no memory that belongs to it."""
    return dataclasses.replace(
        request,
        inputs={name: _lasting(array) for name, array in request.inputs.items()},
        priority=_LAST,
        cancelled=None,
        deadline_s=None,
    )


def _lasting(array: Tensor) -> Tensor:
    """The array itself if nobody can change or take back its memory, else a copy."""
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return array if isinstance(base, bytes | np.ndarray) else array.copy()
