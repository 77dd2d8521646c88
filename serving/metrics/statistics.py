"""Counters of one version of a model: a lock and plain numbers, read by every protocol."""

from __future__ import annotations

import bisect
import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Final

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
)

# Upper bounds of the latency histogram, in seconds: from a tiny model to a stuck one.
LATENCY_BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


@dataclasses.dataclass(slots=True)
class CacheCounts:
    """What a response cache did.

    Attributes:
        rows: of the requests that it answered.
        hit_ns, miss_ns: spent on looking, and on waiting for an equal request's answer.
        evictions: answers dropped to make room for others.
    """

    hits: int = 0
    misses: int = 0
    rows: int = 0
    hit_ns: int = 0
    miss_ns: int = 0
    evictions: int = 0


class Statistics:
    """Counts requests and runs. Thread-safe; durations are in nanoseconds.

    Attributes:
        success, failure: requests answered, and errors by code.
        rows: rows of all successful requests.
        runs: executions of the model by the number of rows in each, with their summed duration.
        closed: why each batch was closed, by reason.
        cache: of the response cache; zeros without one.
        members: of an ensemble: answers and errors by code of each member, by name.
        last_ns: wall-clock time of the last request, in nanoseconds since the epoch; 0 is never.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.success = 0
        self.failure: dict[str, int] = {}
        self.rows = 0
        self.success_ns = 0
        self.failure_ns = 0
        self.queue_ns = 0
        self.infer_ns = 0
        self.input_ns = 0
        self.output_ns = 0
        self.runs: dict[int, tuple[int, int]] = {}
        self.closed: dict[str, int] = {}
        self.latency_counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.members: dict[str, dict[str, int]] = {}
        self._members: tuple[str, ...] = ()
        self.last_ns = 0
        self.cache = CacheCounts()

    def name_members(self, names: Sequence[str]) -> None:
        """Says whose answers ``record_member`` counts, in order."""
        self._members = tuple(names)
        self.members = {name: {"OK": 0} for name in names}

    def record_member(self, number: int, results: Sequence[InferResult]) -> None:
        """Counts what one member of an ensemble answered."""
        counts = self.members[self._members[number]]
        with self._lock:
            for result in results:
                code = result.code.name if isinstance(result, CrossfadeError) else "OK"
                counts[code] = counts.get(code, 0) + 1

    def record_requests(
        self, duration_ns: int, answered: Sequence[tuple[InferRequest, InferResponse]]
    ) -> None:
        """Counts requests that came together and were answered."""
        bucket = bisect.bisect_left(LATENCY_BOUNDS_S, duration_ns * 1e-9)
        with self._lock:
            self.success += len(answered)
            self.success_ns += duration_ns * len(answered)
            self.latency_counts[bucket] += len(answered)
            for request, response in answered:
                self.rows += request.rows
                self.queue_ns += response.timings.queue_ns
                self.infer_ns += response.timings.infer_ns
                self.input_ns += response.timings.input_ns
                self.output_ns += response.timings.output_ns
        self.last_ns = time.time_ns()

    def record_failure(self, error: CrossfadeError, duration_ns: int) -> None:
        """Counts one request that was answered with an error."""
        code = error.code.name
        with self._lock:
            self.failure[code] = self.failure.get(code, 0) + 1
            self.failure_ns += duration_ns
        self.last_ns = time.time_ns()

    def record_run(self, rows: int, duration_ns: int, reason: str) -> None:
        """Counts one execution of the model and why its batch was closed."""
        with self._lock:
            count, total_ns = self.runs.get(rows, (0, 0))
            self.runs[rows] = (count + 1, total_ns + duration_ns)
            self.closed[reason] = self.closed.get(reason, 0) + 1

    def record_hit(self, rows: int, duration_ns: int) -> None:
        """Counts a request that the response cache answered."""
        with self._lock:
            self.cache.hits += 1
            self.cache.rows += rows
            self.cache.hit_ns += duration_ns

    def record_miss(self, duration_ns: int) -> None:
        """Counts a request that the response cache could not answer."""
        with self._lock:
            self.cache.misses += 1
            self.cache.miss_ns += duration_ns

    def record_eviction(self) -> None:
        """Counts an answer that was dropped to make room."""
        with self._lock:
            self.cache.evictions += 1


class Measured:
    """A Model that counts what the Model inside it answers."""

    def __init__(self, inner: Model, statistics: Statistics) -> None:
        self._inner = inner
        self.metadata: ModelMetadata = inner.metadata
        self.statistics = statistics

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        began_ns = time.perf_counter_ns()
        results = self._inner.infer(requests)
        duration_ns = time.perf_counter_ns() - began_ns
        answered: list[tuple[InferRequest, InferResponse]] = []
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, CrossfadeError):
                self.statistics.record_failure(result, duration_ns)
            else:
                answered.append((request, result))
        if answered:
            self.statistics.record_requests(duration_ns, answered)
        return results

    def close(self) -> None:
        """See ``Model.close``."""
        self._inner.close()
