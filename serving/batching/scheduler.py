"""The queue in front of a model: bounded, by priority, and stacked by whoever arrives first.

There is no dispatcher thread. The thread that brought a request runs it if an instance is free.
Otherwise the request waits; when an instance comes free, the first in line is woken to lead: it
stacks what has gathered behind it, runs once, and hands out the answers. So under load the batch
forms by itself while the instances are busy, and a lone request is never delayed, unless the
model's configuration allows a delay.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import threading
import time
from collections.abc import Sequence

from crossfade.runtimes.core.errors import (
    Cancelled,
    Code,
    CrossfadeError,
    Internal,
    ResourceExhausted,
    Unavailable,
)
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
    Timings,
)
from crossfade.serving.batching.stacking import Key, first_batch, key_of, stack, unstack
from crossfade.serving.batching.waiting import Entry, Waiter, why_dead
from crossfade.serving.config.model_config import Queue
from crossfade.serving.metrics.statistics import Statistics

_log = logging.getLogger(__name__)
# A run that takes longer than this is worth a thread of its own.
_QUICK_S = 0.0005
# Errors that say nothing about the neighbours in the batch: each request is then run alone.
_SEPARABLE = frozenset({Code.INVALID_ARGUMENT, Code.INTERNAL, Code.FAILED_PRECONDITION})


class Scheduled:
    """A Model whose requests queue for ``instances`` concurrent runs of the Model inside it.

    ``max_rows``, ``crowd_rows`` and ``max_delay_s`` may be changed while it runs. Thread-safe.

    Attributes:
        instances: runs that may go on at the same time.
        max_rows: rows that requests may be stacked to; 1 switches stacking off.
        crowd_rows: the same while more requests wait than the instances take next, if it is more:
            those at the end would not be answered sooner without.
        max_delay_s: how long the first request may wait for others to join it.
        indirect: a run waits for somebody else, and may take long however quick the last one was.
    """

    def __init__(
        self,
        inner: Model,
        statistics: Statistics,
        *,
        instances: int,
        queue: Queue,
        max_rows: int = 1,
        max_delay_s: float = 0.0,
        indirect: bool = False,
    ) -> None:
        self._inner = inner
        self.metadata: ModelMetadata = inner.metadata
        self.max_rows = max_rows
        self.crowd_rows = 1
        self.max_delay_s = max_delay_s
        self._statistics = statistics
        self._queue = queue
        self.instances = instances
        self._indirect = indirect
        self._free = instances
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._forming = False
        self._waiting: list[Entry] = []  # sorted by order
        self._sequence = itertools.count()
        # Rows of the others may influence each other, or are no rows at all.
        self._stackable = frozenset(n for n, s in inner.metadata.signatures.items() if s.batched)
        self._run_s = 0.0  # smoothed duration of a run, for the retry hint

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return len(self._waiting)

    @property
    def is_quick(self) -> bool:
        """Whether a request would now be run at once, and be over in a moment."""
        if self._indirect or self.max_delay_s:
            return False
        return 0 < self._run_s < _QUICK_S and self._free > 0

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``; refuses with ResourceExhausted what the queue cannot hold."""
        if not self.max_delay_s:
            with self._lock:
                enter = self._free > 0 and not self._waiting
                if enter:
                    self._free -= 1
            if enter:
                try:
                    if len(requests) == 1:
                        return (self._alone(requests[0], 0, "idle"),)
                    return self._together(requests)
                except Exception as error:
                    hidden = Internal.hide(error, _log, f"model {self.metadata.name}")
                    return [hidden] * len(requests)
                finally:
                    with self._lock:
                        self._promote()
        return self._wait(requests)

    def close(self) -> None:
        """See ``Model.close``."""
        self._inner.close()

    def _together(self, requests: Sequence[InferRequest]) -> list[InferResult]:
        """Runs requests that arrived together at once, as the queue would."""
        results: list[InferResult | None] = [why_dead(request) for request in requests]
        line = [index for index, result in enumerate(results) if result is None]
        if self._queue.priority_levels:
            line.sort(key=lambda index: self._level(requests[index]))
        forms = [(self._key(request), request.rows) for request in requests]
        while line:
            limit = self._limit(len(line))
            batch = [line[at] for at in first_batch([forms[i] for i in line], limit)]
            line = [index for index in line if index not in batch]
            members = [requests[index] for index in batch]
            full = sum(member.rows for member in members) >= limit > 1
            answers = self._run(members, [0] * len(batch), "full" if full else "idle")
            for index, answer in zip(batch, answers, strict=True):
                results[index] = answer
        return [result for result in results if result is not None]

    def _wait(self, requests: Sequence[InferRequest]) -> list[InferResult]:
        waiter = Waiter(len(requests))
        entries = [self._entry(request, waiter) for request in requests]
        with self._lock:
            for entry in entries:
                self._admit(entry)
            if self._free and self._waiting and not self._forming:
                self._free -= 1
                waiter.lead = True
            self._arrived.notify()
        for entry in entries:
            if entry.queued and entry.request.cancelled is not None:
                entry.request.cancelled.subscribe(lambda e=entry: self._cancel(e))  # type: ignore[misc]
        woken = False
        while True:
            with self._lock:
                if woken:
                    waiter.woken()
                lead, waiter.lead = waiter.lead, False
                if not lead and not waiter.pending:
                    break
            woken = False
            if lead:
                self._lead(waiter)
                continue
            expiries = [e.expires_s for e in entries if e.result is None and e.expires_s]
            timeout_s = max(0.0, min(expiries) - time.monotonic()) if expiries else -1
            woken = waiter.sleep(timeout_s)
            if not woken:
                self._expire(entries)
        return [entry.result for entry in entries if entry.result is not None]

    def _entry(self, request: InferRequest, waiter: Waiter) -> Entry:
        queue = self._queue
        level = self._level(request) if queue.priority_levels else 0
        entry = Entry(request, waiter, (level, next(self._sequence)), self._key(request))
        if queue.timeout_ms is not None:
            limit_s = time.monotonic() + queue.timeout_ms / 1000
            entry.expires_s = min(entry.expires_s or limit_s, limit_s)
        return entry

    def _level(self, request: InferRequest) -> int:
        return request.priority or self._queue.default_priority

    def _key(self, request: InferRequest) -> Key | None:
        stackable = max(self.max_rows, self.crowd_rows) > 1 and request.signature in self._stackable
        return key_of(request) if stackable else None

    def _limit(self, waiting: int) -> int:
        """Rows of the next run, while so many requests are in line."""
        return max(self.max_rows, self.crowd_rows if waiting > self.instances else 1)

    def _admit(self, entry: Entry) -> None:
        if len(self._waiting) >= self._queue.max_size:
            self._drop_dead()
        if len(self._waiting) >= self._queue.max_size:
            hint_s = max(0.05, self._run_s * len(self._waiting) / self.instances)
            entry.answer(
                ResourceExhausted(
                    f"the queue of model '{self.metadata.name}' is full"
                    f" ({self._queue.max_size} requests wait)",
                    retry_after_s=hint_s,
                )
            )
            return
        entry.queued = True
        bisect.insort(self._waiting, entry, key=lambda e: e.order)

    def _promote(self) -> None:
        """Passes an instance on to the first thread in line that does not lead a run, or back."""
        if not self._forming:
            for entry in self._waiting:
                waiter = entry.waiter
                if not (waiter.lead or waiter.running):
                    waiter.lead = True
                    waiter.signal()
                    return
        self._free += 1

    def _lead(self, waiter: Waiter) -> None:
        with self._lock:
            waiter.running = True
            batch, reason = self._form()
            if self._free and self._waiting:
                self._free -= 1  # what did not fit starts on another instance at once
                self._promote()
        results: Sequence[InferResult] = ()
        now_ns = time.perf_counter_ns()
        waited_ns = [now_ns - entry.began_ns for entry in batch]
        requests = [entry.request for entry in batch]
        try:
            if batch:
                results = self._run(requests, waited_ns, reason)
        except Exception as error:  # out of memory, say: nobody may be left waiting
            hidden = Internal.hide(error, _log, f"model {self.metadata.name}")
            results = [hidden] * len(batch)
        with self._lock:
            waiter.running = False
            self._promote()  # first: the instance idles until the next leader is awake
            for entry, result in zip(batch, results, strict=True):
                entry.answer(result)

    def _form(self) -> tuple[list[Entry], str]:
        """Takes the first in line and all that may ride with it out of the queue."""
        self._drop_dead()
        reason = "idle"
        if self.max_delay_s and self._waiting and self._waiting[0].key is not None:
            reason = self._gather()
            self._drop_dead()
        if not self._waiting:
            return [], reason
        line = [(entry.key, entry.request.rows) for entry in self._waiting]
        limit = self._limit(len(line))
        batch = [self._waiting[place] for place in first_batch(line, limit)]
        for entry in batch:
            entry.queued = False  # taken
        self._waiting = [entry for entry in self._waiting if entry.queued]
        rows = sum(entry.request.rows for entry in batch)
        return batch, "full" if rows >= limit > 1 else reason

    def _gather(self) -> str:
        """Waits, as the leader, for others to join the first in line; says why it stopped."""
        self._forming = True
        try:
            while True:
                head = self._waiting[0]
                if any(entry.key != head.key for entry in self._waiting):
                    return "mixed"
                if sum(entry.request.rows for entry in self._waiting) >= self.max_rows:
                    return "full"
                left_s = self.max_delay_s - (time.perf_counter_ns() - head.began_ns) * 1e-9
                if head.expires_s:
                    left_s = min(left_s, (head.expires_s - time.monotonic()) / 2)
                if left_s <= 0 or not self._arrived.wait(left_s):
                    return "delay"
                if not self._waiting:
                    return "delay"
        finally:
            self._forming = False

    def _run(
        self, requests: Sequence[InferRequest], waited_ns: Sequence[int], reason: str
    ) -> Sequence[InferResult]:
        if len(requests) > 1:
            together = self._inner.infer((stack(requests),))[0]
            if isinstance(together, InferResponse):
                answers = unstack(together, requests, waited_ns)
                self._count(together, reason)
                if answers is not None:
                    return answers
                self.max_rows = self.crowd_rows = 1  # the rows of this model do not stay apart
            elif together.code not in _SEPARABLE:
                return [together] * len(requests)
            reason = "separated"
        return [self._alone(r, w, reason) for r, w in zip(requests, waited_ns, strict=True)]

    def _alone(self, request: InferRequest, waited_ns: int, reason: str) -> InferResult:
        dead = why_dead(request)
        if dead is not None:
            return dead
        result = self._inner.infer((request,))[0]
        if isinstance(result, CrossfadeError):
            return result
        self._count(result, reason)
        if waited_ns:
            timings = Timings(waited_ns, result.timings.infer_ns, request.rows)
            return InferResponse(result.outputs, result.model, timings, result.parameters)
        return result

    def _count(self, response: InferResponse, reason: str) -> None:
        timings = response.timings
        weight = 0.1 if self._run_s else 1.0
        self._run_s += weight * (timings.infer_ns * 1e-9 - self._run_s)
        self._statistics.record_run(timings.batch_rows, timings.infer_ns, reason)

    def _drop_dead(self) -> None:
        """Answers those in line whose caller has gone or whose time is up."""
        alive: list[Entry] = []
        for entry in self._waiting:
            dead = why_dead(entry.request) or self._overdue(entry)
            if dead is None:
                alive.append(entry)
            else:
                entry.answer(dead)
        self._waiting = alive

    def _overdue(self, entry: Entry) -> CrossfadeError | None:
        timeout_ms = self._queue.timeout_ms
        if timeout_ms is None or entry.expires_s is None or time.monotonic() < entry.expires_s:
            return None
        return Unavailable(
            f"the request waited {timeout_ms:g} ms in the queue of model '{self.metadata.name}'",
            retry_after_s=max(0.05, self._run_s),
        )

    def _expire(self, entries: Sequence[Entry]) -> None:
        """Gives up on those whose time is up, also on one that is already running."""
        with self._lock:
            self._drop_dead()
            for entry in entries:
                dead = why_dead(entry.request)
                if dead is not None:
                    entry.answer(dead)
                elif not entry.queued:
                    entry.expires_s = entry.request.deadline_s  # it runs: only the caller's counts

    def _cancel(self, entry: Entry) -> None:
        with self._lock:
            if entry.queued:
                self._waiting.remove(entry)
            entry.answer(Cancelled("the caller cancelled the request"))
