"""A Model that remembers answers: equal requests are answered without a run.

Requests are known by a digest of all that their answer depends on. It is a cryptographic one:
clients share the cache, and none may be able to make a request that is taken for another's.
"""

from __future__ import annotations

import collections
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    Tensor,
    Timings,
)
from crossfade.serving.batching.waiting import why_dead
from crossfade.serving.config.model_config import Cache
from crossfade.serving.metrics.statistics import Statistics

# What an entry takes beside its tensors, about: keys, dictionaries, array headers.
_ENTRY_BYTES: Final = 600
_OBJECT_BYTES: Final = 48
_SECOND_NS: Final = 1_000_000_000


def digest(request: InferRequest) -> bytes:
    """What a request's answer depends on, for one version of a model."""
    hashed = hashlib.sha256(repr((request.signature, request.outputs)).encode())
    for name in sorted(request.inputs):
        array = request.inputs[name]
        hashed.update(repr((name, array.dtype.str, array.dtype.name, array.shape)).encode())
        if array.dtype.hasobject:
            for element in array.reshape(-1):
                hashed.update(len(element).to_bytes(8, "little"))
                hashed.update(element)
        elif array.size:
            hashed.update(np.ascontiguousarray(array).view(np.uint8).data)
    return hashed.digest()


class Store:
    """Answers by digest, the least recently used dropped first. Thread-safe.

    Args:
        limits: bytes and seconds.
        statistics: counts what is dropped to make room.
        now_ns: a clock that never goes back.
    """

    def __init__(
        self,
        limits: Cache,
        statistics: Statistics,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._max_bytes = limits.max_bytes
        self._ttl_ns = None if limits.ttl_s is None else round(limits.ttl_s * _SECOND_NS)
        self._statistics = statistics
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[bytes, tuple[InferResponse, int, int]] = (
            collections.OrderedDict()
        )
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> InferResponse | None:
        """The answer, unless there is none or it is too old."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            response, size, kept_ns = found
            if self._ttl_ns is not None and self._now_ns() - kept_ns >= self._ttl_ns:
                del self._kept[key]
                self.used_bytes -= size
                return None
            self._kept.move_to_end(key)
            return response

    def put(self, key: bytes, response: InferResponse) -> None:
        """Keeps an answer, a copy where it is part of something larger; one too large is not."""
        outputs = {name: _own(array) for name, array in response.outputs.items()}
        size = _ENTRY_BYTES + sum(_bytes(array) for array in outputs.values())
        if size > self._max_bytes:
            return
        kept = InferResponse(outputs, response.model, Timings(), response.parameters)
        with self._lock:
            _, before, _ = self._kept.pop(key, (None, 0, 0))
            self.used_bytes += size - before
            self._kept[key] = (kept, size, self._now_ns())
            while self.used_bytes > self._max_bytes:
                _, (_, dropped, _) = self._kept.popitem(last=False)
                self.used_bytes -= dropped
                self._statistics.record_eviction()


def _own(array: Tensor) -> Tensor:
    """The array, or a copy of its own memory; read-only, as several callers get it."""
    own = array if array.base is None else array.copy()
    own.flags.writeable = False
    return own


def _bytes(array: Tensor) -> int:
    if array.dtype.hasobject:
        return array.nbytes + sum(len(element) + _OBJECT_BYTES for element in array.reshape(-1))
    return array.nbytes


class _Flight:
    """A request that is being run, and those that wait for its answer."""

    def __init__(self) -> None:
        self.response: InferResponse | None = None
        self._landed = False
        self._waiting: list[threading.Event] = []
        self._lock = threading.Lock()

    def land(self) -> None:
        """Wakes those that wait."""
        with self._lock:
            self._landed = True
            waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()

    def wait(self, request: InferRequest) -> None:
        """Waits until it has landed, or nobody wants the answer any more."""
        woken = threading.Event()
        with self._lock:
            if self._landed:
                return
            self._waiting.append(woken)
        if request.cancelled is not None:
            request.cancelled.subscribe(woken.set)
        until_s = request.deadline_s
        woken.wait(None if until_s is None else max(0.0, until_s - time.monotonic()))


class Cached:
    """A Model around one whose answers depend on the requests alone.

    Of equal requests that come while the first is still running, the others wait for its answer.
    What fails is not kept, and each request then runs for itself. Thread-safe.
    """

    def __init__(self, inner: Model, limits: Cache, statistics: Statistics) -> None:
        self._inner = inner
        self.metadata = inner.metadata
        self._statistics = statistics
        self.store = Store(limits, statistics)
        self._lock = threading.Lock()
        self._flights: dict[bytes, _Flight] = {}

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        results: list[InferResult | None] = [None] * len(requests)
        led: dict[int, tuple[bytes, _Flight]] = {}
        followed: dict[int, _Flight] = {}
        for index, request in enumerate(requests):
            began_ns = time.perf_counter_ns()
            key = digest(request)
            with self._lock:
                response = self.store.get(key)
                flight = self._flights.get(key)
                if response is None and flight is None:
                    led[index] = key, self._flights.setdefault(key, _Flight())
            spent_ns = time.perf_counter_ns() - began_ns
            if response is not None:
                results[index] = self._hit(request, response, spent_ns)
            elif flight is not None:
                followed[index] = flight
            else:
                self._statistics.record_miss(spent_ns)
        if led:
            self._lead([requests[index] for index in led], led, results)
        for index, flight in followed.items():
            results[index] = self._follow(requests[index], flight)
        return [result for result in results if result is not None]

    def close(self) -> None:
        """See ``Model.close``."""
        self._inner.close()

    def _hit(self, request: InferRequest, response: InferResponse, spent_ns: int) -> InferResult:
        if (dead := why_dead(request)) is not None:
            return dead
        self._statistics.record_hit(request.rows, spent_ns)
        timings = Timings(batch_rows=request.rows)
        return InferResponse(response.outputs, response.model, timings, response.parameters)

    def _lead(
        self,
        requests: Sequence[InferRequest],
        led: dict[int, tuple[bytes, _Flight]],
        results: list[InferResult | None],
    ) -> None:
        try:
            answers = self._inner.infer(requests)
            for (index, (key, flight)), answer in zip(led.items(), answers, strict=True):
                results[index] = answer
                if isinstance(answer, InferResponse):
                    self.store.put(key, answer)
                    flight.response = answer
        finally:
            with self._lock:
                for key, _ in led.values():
                    del self._flights[key]
            for _, flight in led.values():
                flight.land()

    def _follow(self, request: InferRequest, flight: _Flight) -> InferResult:
        began_ns = time.perf_counter_ns()
        flight.wait(request)
        spent_ns = time.perf_counter_ns() - began_ns
        if (response := flight.response) is not None:
            return self._hit(request, response, spent_ns)
        self._statistics.record_miss(spent_ns)
        return why_dead(request) or self._inner.infer((request,))[0]
