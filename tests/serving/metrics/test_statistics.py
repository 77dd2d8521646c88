"""Counters: right after every request, whatever came of it, from any number of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from crossfade.runtimes.core.errors import InvalidArgument, Unavailable
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Timings,
)
from crossfade.serving.metrics.statistics import LATENCY_BOUNDS_S, Measured, Statistics

METADATA = ModelMetadata("m", 1, "fake", {})
MS = 1_000_000


def record(counts: Statistics, duration_ns: int, queue_ns: int, infer_ns: int, rows: int) -> None:
    answer = InferResponse({}, METADATA, Timings(queue_ns, infer_ns))
    counts.record_requests(duration_ns, [(InferRequest({}, rows=rows), answer)])


def test_nothing_yet() -> None:
    counts = Statistics()
    assert (counts.success, counts.failure, counts.rows, counts.last_ns) == (0, {}, 0, 0)
    assert sum(counts.latency_counts) == 0


def test_requests_add_up() -> None:
    counts = Statistics()
    record(counts, 10 * MS, 4 * MS, 5 * MS, 3)
    record(counts, 20 * MS, 1 * MS, 15 * MS, 1)
    assert (counts.success, counts.rows) == (2, 4)
    assert (counts.success_ns, counts.queue_ns, counts.infer_ns) == (30 * MS, 5 * MS, 20 * MS)
    assert abs(counts.last_ns - time.time_ns()) < 60e9


def test_failures_are_counted_by_code() -> None:
    counts = Statistics()
    counts.record_failure(InvalidArgument("a"), 5)
    counts.record_failure(InvalidArgument("b"), 6)
    counts.record_failure(Unavailable("c"), 7)
    assert counts.failure == {"INVALID_ARGUMENT": 2, "UNAVAILABLE": 1}
    assert counts.failure_ns == 18
    assert counts.success == 0
    assert counts.last_ns > 0


def test_runs_are_counted_by_rows_and_by_why_their_batch_was_closed() -> None:
    counts = Statistics()
    counts.record_run(4, 10, "full")
    counts.record_run(4, 20, "full")
    counts.record_run(1, 5, "idle")
    assert counts.runs == {4: (2, 30), 1: (1, 5)}
    assert counts.closed == {"full": 2, "idle": 1}


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (LATENCY_BOUNDS_S[0], 0),
        (LATENCY_BOUNDS_S[0] * 1.01, 1),
        (0.03, LATENCY_BOUNDS_S.index(0.05)),
        (10.0, len(LATENCY_BOUNDS_S) - 1),
        (11.0, len(LATENCY_BOUNDS_S)),
    ],
)
def test_latencies_fall_in_the_bucket_whose_bound_they_do_not_exceed(
    seconds: float, bucket: int
) -> None:
    counts = Statistics()
    record(counts, round(seconds * 1e9), 0, 0, 1)
    assert counts.latency_counts[bucket] == 1
    assert sum(counts.latency_counts) == 1


def test_no_count_is_lost_between_threads() -> None:
    counts = Statistics()
    failure = InvalidArgument("x")

    def add() -> None:
        for _ in range(500):
            record(counts, MS, 2, 3, 4)
            counts.record_failure(failure, 1)
            counts.record_run(8, 5, "full")

    threads = [threading.Thread(target=add, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts.success, counts.rows, counts.infer_ns) == (4000, 16000, 12000)
    assert counts.failure == {"INVALID_ARGUMENT": 4000}
    assert counts.runs == {8: (4000, 20000)}
    assert sum(counts.latency_counts) == 4000


class Answers:
    """A model that gives the answers that it was made with."""

    def __init__(self, *results: InferResult) -> None:
        self.metadata = METADATA
        self.results = results
        self.closed = False

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        return self.results

    def close(self) -> None:
        self.closed = True


def test_what_a_model_answers_is_counted_and_passed_on() -> None:
    good = InferResponse({}, METADATA, Timings(7, 9, 5))
    bad = InvalidArgument("x")
    counts = Statistics()
    measured = Measured(Answers(good, bad, good), counts)
    ask = InferRequest({"x": np.zeros(1)}, rows=2)
    assert list(measured.infer([ask, ask, ask])) == [good, bad, good]
    assert (counts.success, counts.rows, counts.queue_ns, counts.infer_ns) == (2, 4, 14, 18)
    assert counts.failure == {"INVALID_ARGUMENT": 1}
    assert measured.metadata is METADATA


def test_a_model_that_answers_another_number_is_not_believed() -> None:
    measured = Measured(Answers(), Statistics())
    with pytest.raises(ValueError, match=r"shorter|longer"):
        measured.infer([InferRequest({})])


def test_closing_passes_through() -> None:
    inner = Answers()
    Measured(inner, Statistics()).close()
    assert inner.closed
