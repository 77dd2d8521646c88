"""Those who wait for a model: the thread, and each request that it brought.

All fields are guarded by the lock of the scheduler that they wait for.
"""

from __future__ import annotations

import threading
import time

from crossfade.runtimes.core.errors import Cancelled, CrossfadeError, DeadlineExceeded
from crossfade.runtimes.core.model import InferRequest, InferResult
from crossfade.serving.batching.stacking import Key


class Waiter:
    """One waiting thread.

    Attributes:
        lead: it was given an instance and is to run the next batch.
        running: it leads a run now, and cannot begin another one.
        pending: requests of this thread that have no answer yet.
    """

    __slots__ = ("_signalled", "_wake", "lead", "pending", "running")

    def __init__(self, pending: int) -> None:
        self._wake = threading.Lock()  # held: asleep. Cheaper than an Event or a Condition
        self._wake.acquire()
        self._signalled = False
        self.lead = False
        self.running = False
        self.pending = pending

    def signal(self) -> None:
        """Wakes the thread, under the scheduler's lock."""
        if not self._signalled:
            self._signalled = True
            self._wake.release()

    def sleep(self, timeout_s: float) -> bool:
        """Sleeps, without the lock, until signalled; -1 is for ever. False if the time is up."""
        return self._wake.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX))

    def woken(self) -> None:
        """Takes note, under the lock, that ``sleep`` has returned True."""
        self._signalled = False


class Entry:
    """One waiting request.

    Attributes:
        order: place in line: level of priority, then order of arrival.
        key: requests with the same may be stacked; ``None`` is never.
        expires_s: ``time.monotonic()`` value after which it is not to wait any longer.
        queued: it is in line; false before, and once it has been taken or answered.
    """

    __slots__ = ("began_ns", "expires_s", "key", "order", "queued", "request", "result", "waiter")

    def __init__(
        self, request: InferRequest, waiter: Waiter, order: tuple[int, int], key: Key | None
    ) -> None:
        self.request = request
        self.waiter = waiter
        self.order = order
        self.key = key
        self.began_ns = time.perf_counter_ns()
        self.expires_s = request.deadline_s
        self.queued = False
        self.result: InferResult | None = None

    def answer(self, result: InferResult) -> None:
        """Sets the result, unless there is one, and wakes the thread with its last."""
        self.queued = False
        if self.result is None:
            self.result = result
            self.waiter.pending -= 1
            if not self.waiter.pending:
                self.waiter.signal()


def why_dead(request: InferRequest) -> CrossfadeError | None:
    """Says why nobody wants the answer any more, if so."""
    if request.deadline_s is not None and time.monotonic() >= request.deadline_s:
        return DeadlineExceeded("the deadline passed before the model ran")
    if request.cancelled is not None and request.cancelled.is_set():
        return Cancelled("the caller cancelled the request")
    return None
