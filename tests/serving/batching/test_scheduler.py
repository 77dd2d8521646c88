"""Who runs when, with whom, and on which thread."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import DeadlineExceeded, InvalidArgument
from crossfade.runtimes.core.model import InferRequest, InferResponse, Timings
from tests.serving.batching.fakes import (
    Bench,
    Runs,
    answer,
    only,
    request,
    result,
    values,
    wait_until,
)


def test_a_lone_request_is_run_at_once_on_its_own_thread() -> None:
    with Bench(max_rows=8) as bench:
        (found,) = bench.scheduled.infer((request(3, rows=2),))
    assert values(found) == answer(3, rows=2)
    assert isinstance(found, InferResponse)
    assert found.timings == Timings(0, 1_000_000, 2)
    assert bench.runs.threads == [threading.get_ident()]
    assert bench.statistics.closed == {"idle": 1}


def test_in_a_crowd_more_are_stacked() -> None:
    """Only as long as more wait than the instances take next."""
    with Bench(max_rows=1) as bench:
        bench.scheduled.crowd_rows = 2
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*map(request, (1, 2, 3, 4, 5)))
        assert [only(s) for s in sent] == [answer(n) for n in (1, 2, 3, 4, 5)]
    assert bench.runs.numbers == [[0], [1, 2], [3, 4], [5]]


def test_what_arrives_together_is_a_crowd_too() -> None:
    with Bench(max_rows=1) as bench:
        bench.scheduled.crowd_rows = 2
        found = bench.scheduled.infer(tuple(map(request, (1, 2, 3))))
        assert [values(one) for one in found] == [answer(n) for n in (1, 2, 3)]
    assert bench.runs.numbers == [[1, 2], [3]]


def test_no_requests_are_no_run() -> None:
    with Bench(max_rows=8, max_delay_s=5) as bench:
        assert list(bench.scheduled.infer(())) == []
    assert bench.runs.rows == []


def test_requests_that_arrive_while_the_model_is_busy_become_one_batch() -> None:
    with Bench(max_rows=8) as bench:
        with bench.runs.held():
            busy = bench.occupy()
            sent = bench.queue_up(request(1), request(2, rows=3), request(3))
        assert [only(s) for s in sent] == [answer(1), answer(2, rows=3), answer(3)]
        assert only(busy[0]) == answer(0)
    assert bench.runs.numbers == [[0], [1, 2, 2, 2, 3]]
    assert bench.statistics.runs == {1: (1, 1_000_000), 5: (1, 1_000_000)}
    for one in sent:
        found = result(one)
        assert isinstance(found, InferResponse)
        assert found.timings.batch_rows == 5
        assert found.timings.queue_ns > 0
        assert found.model is bench.scheduled.metadata


def test_requests_of_one_caller_are_answered_in_their_order() -> None:
    sizes = [1, 2, 1, 3, 2, 1]
    sent = [request(n, rows, width=2 + n % 2) for n, rows in enumerate(sizes)]
    with Bench(max_rows=4) as bench:
        found = bench.scheduled.infer(sent)
    assert [values(f) for f in found] == [
        answer(n, rows, width=2 + n % 2) for n, rows in enumerate(sizes)
    ]


def test_a_batch_ends_where_the_next_does_not_fit() -> None:
    with Bench(max_rows=6) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n, rows) for n, rows in enumerate([3, 2, 4, 1, 6, 7])])
        for n, rows in enumerate([3, 2, 4, 1, 6, 7]):
            assert only(sent[n]) == answer(n, rows)
    # 4 does not fit behind 3 and 2, but 1 does; 7 is more than a batch may have, and runs alone.
    assert bench.runs.rows == [1, 6, 4, 6, 7]


@pytest.mark.parametrize(
    "other",
    [
        request(2, width=3),
        request(2, signature="second"),
        request(2, outputs=("y",)),
        InferRequest({"x": np.full((1, 2), 2, dtype=np.float64)}),
    ],
    ids=["another shape", "another signature", "other outputs", "another dtype"],
)
def test_requests_that_differ_are_not_stacked(other: InferRequest) -> None:
    with Bench(max_rows=8) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(request(1), other, request(3))
        assert [only(s)[0][0] for s in sent] == [3, 5, 7]
    assert bench.runs.numbers == [[0], [1, 3], [2]]


def test_a_signature_without_a_batch_is_never_stacked() -> None:
    """Its first dimension is not of rows: two requests one behind the other are another request."""
    with Bench(max_rows=8) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n, signature="alone") for n in (1, 2, 3)])
        assert [only(s) for s in sent] == [answer(n) for n in (1, 2, 3)]
    assert bench.runs.numbers == [[0], [1], [2], [3]]
    assert bench.scheduled.max_rows == 8


def test_scalars_of_a_signature_without_a_batch_pass_under_load() -> None:
    scalars = [
        InferRequest({"x": np.array(n, dtype=np.float32)}, signature="alone") for n in (1, 2)
    ]
    runs = Runs()
    with Bench(runs, max_rows=8) as bench:
        with runs.held():
            bench.occupy()
            sent = bench.queue_up(*scalars)
        found = [result(s) for s in sent]
    assert [float(f.outputs["y"]) for f in found if isinstance(f, InferResponse)] == [3, 5]


@pytest.mark.parametrize("instances", [1, 2, 3])
def test_as_many_runs_as_there_are_instances_go_on_at_the_same_time(instances: int) -> None:
    with Bench(instances=instances) as bench:
        with bench.runs.held():
            busy = bench.occupy()
            sent = bench.queue_up(*[request(n) for n in range(1, 8)])
        assert [only(s) for s in sent] == [answer(n) for n in range(1, 8)]
        assert [only(s) for s in busy] == [answer(0)] * instances
    assert bench.runs.most_active == instances


def test_what_does_not_fit_in_a_batch_starts_on_another_instance_at_once() -> None:
    with Bench(instances=2, max_rows=2) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n) for n in range(1, 5)])
        [only(s) for s in sent]
        assert sorted(bench.runs.numbers) == [[0], [0], [1, 2], [3, 4]]
        bench.assert_all_instances_work()


def test_no_instance_waits_for_a_caller_who_is_busy_with_another_of_his_requests() -> None:
    with Bench(instances=2, max_rows=4) as bench:
        with bench.runs.held():
            for number in (10, 11):
                bench.call(request(number))
                wait_until(lambda n=number: [n] in bench.runs.numbers)  # type: ignore[misc]
            both = bench.call(request(1, width=2), request(2, width=3))
            wait_until(lambda: bench.scheduled.waiting == 2)
            (third,) = bench.queue_up(request(3, width=4))
            bench.runs.release(10)
            wait_until(lambda: [1] in bench.runs.numbers)
            bench.runs.release(11)
            bench.runs.release(2)
            wait_until(lambda: [3] in bench.runs.numbers)
            assert bench.runs.active == 2
        assert only(third) == answer(3, width=4)
        assert [values(f) for f in both.result()] == [answer(1), answer(2, width=3)]
        bench.assert_all_instances_work()


def test_size_and_delay_may_change_while_it_serves() -> None:
    with Bench(max_rows=1) as bench:
        bench.scheduled.max_rows = 4
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n) for n in range(1, 5)])
        [only(s) for s in sent]
    assert bench.runs.rows == [1, 4]


# -- priority -----------------------------------------------------------------------------------


def test_urgent_requests_are_served_first_and_equals_in_their_order() -> None:
    levels = [3, 1, 2, 0, 3, 1]  # 0 has the default, 2
    with Bench(priority_levels=3, default_priority=2) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n + 1, priority=p) for n, p in enumerate(levels)])
        [only(s) for s in sent]
    assert bench.runs.numbers == [[0], [2], [6], [3], [4], [1], [5]]


def test_without_levels_priorities_do_not_count() -> None:
    with Bench() as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n, priority=9 - n) for n in (1, 2, 3)])
        [only(s) for s in sent]
    assert bench.runs.numbers == [[0], [1], [2], [3]]


LINE = st.lists(
    st.tuples(st.integers(1, 5), st.integers(2, 3), st.integers(1, 3)), min_size=1, max_size=9
)


@settings(max_examples=30)
@given(line=LINE, max_rows=st.integers(1, 6))
def test_batches_are_those_of_the_rule(line: list[tuple[int, int, int]], max_rows: int) -> None:
    """Whoever is first in line leads, and takes along whatever is alike and still fits."""
    with Bench(max_rows=max_rows, priority_levels=3, default_priority=1) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(
                *[
                    request(n, rows, width, priority=priority)
                    for n, (rows, width, priority) in enumerate(line, 1)
                ]
            )
        for n, (rows, width, _) in enumerate(line, 1):
            assert only(sent[n - 1]) == answer(n, rows, width)
    assert [sorted(set(run), key=run.index) for run in bench.runs.numbers[1:]] == expected(
        line, max_rows
    )


@settings(max_examples=100, deadline=None)
@given(line=LINE, max_rows=st.integers(1, 6), dead=st.integers(0, 10))
def test_those_that_come_together_are_batched_by_the_same_rule(
    line: list[tuple[int, int, int]], max_rows: int, dead: int
) -> None:
    asked = [request(n, rows, width, priority=p) for n, (rows, width, p) in enumerate(line, 1)]
    if dead < len(asked):
        rows, width, priority = line[dead]
        asked[dead] = request(dead + 1, rows, width, priority=priority, deadline_s=1.0)
    with Bench(max_rows=max_rows, priority_levels=3, default_priority=1) as bench:
        found = bench.scheduled.infer(asked)
    alive = [entry for n, entry in enumerate(line) if n != dead]
    numbers = [n for n in range(1, len(line) + 1) if n != dead + 1]
    for n, (rows, width, _) in enumerate(line, 1):
        if n == dead + 1:
            assert isinstance(found[dead], DeadlineExceeded)
        else:
            assert values(found[n - 1]) == answer(n, rows, width)
    batches = [[numbers[n - 1] for n in batch] for batch in expected(alive, max_rows)]
    assert [sorted(set(run), key=run.index) for run in bench.runs.numbers] == batches


def expected(line: list[tuple[int, int, int]], max_rows: int) -> list[list[int]]:
    waiting = sorted(enumerate(line, 1), key=lambda entry: (entry[1][2], entry[0]))
    batches = []
    while waiting:
        (first, (total, width, _)), *rest = waiting
        batch, waiting = [first], []
        for number, entry in rest:
            if max_rows > 1 and entry[1] == width and total + entry[0] <= max_rows:
                batch.append(number)
                total += entry[0]
            else:
                waiting.append((number, entry))
        batches.append(batch)
    return batches


# -- delay --------------------------------------------------------------------------------------


def test_the_first_waits_for_others_no_longer_than_allowed() -> None:
    with Bench(max_rows=8, max_delay_s=0.05) as bench:
        began_s = time.monotonic()
        (found,) = bench.scheduled.infer((request(1),))
        taken_s = time.monotonic() - began_s
    assert values(found) == answer(1)
    assert 0.045 < taken_s < 2
    assert bench.statistics.closed == {"delay": 1}
    assert bench.runs.threads == [threading.get_ident()]


def test_a_batch_that_is_full_does_not_wait() -> None:
    with Bench(max_rows=4, max_delay_s=60) as bench:
        sent = bench.queue_up(request(1), request(2, rows=2))
        sent.append(bench.call(request(3)))
        assert [only(s) for s in sent] == [answer(1), answer(2, rows=2), answer(3)]
    assert bench.statistics.closed == {"full": 1}
    assert bench.runs.rows == [4]


def test_a_batch_is_closed_by_a_request_that_cannot_join_it() -> None:
    with Bench(max_rows=4, max_delay_s=60) as bench:
        first = bench.queue_up(request(1))
        other = bench.call(request(2, width=3))
        assert only(first[0]) == answer(1)
        bench.scheduled.max_delay_s = 0.01
        third = bench.call(request(3, width=3))
        assert (only(other), only(third)) == (answer(2, width=3), answer(3, width=3))
    assert bench.runs.numbers[0] == [1]
    assert bench.statistics.closed["mixed"] == 1


def test_requests_that_come_together_fill_a_batch_together() -> None:
    with Bench(max_rows=3, max_delay_s=60) as bench:
        found = bench.scheduled.infer([request(n) for n in range(6)])
    assert [values(f) for f in found] == [answer(n) for n in range(6)]
    assert bench.runs.rows == [3, 3]


def test_the_delay_ends_early_enough_for_the_deadline() -> None:
    deadline_s = time.monotonic() + 1.0
    with Bench(max_rows=8, max_delay_s=60) as bench:
        (found,) = bench.scheduled.infer((request(1, deadline_s=deadline_s),))
        assert time.monotonic() < deadline_s
    assert values(found) == answer(1)


def test_a_delay_keeps_no_instance_from_others() -> None:
    with Bench(max_rows=2, max_delay_s=60, instances=2) as bench:
        with bench.runs.held():
            full = [bench.call(request(n)) for n in (1, 2)]
            bench.runs.wait_active(1)
            more = [bench.call(request(n)) for n in (3, 4)]
            bench.runs.wait_active(2)
        assert sorted(only(s)[0][0] for s in (*full, *more)) == [3, 5, 7, 9]
        assert bench.runs.rows == [2, 2]


# -- models that break the promise of the batch --------------------------------------------------


def without_rows(one: InferRequest) -> InferResponse:
    """Row by row the same model, but with one more output that has no rows: an average."""
    x = one.inputs["x"]
    outputs = {"y": 2 * x + 1, "mean": np.array(x.mean())}
    return InferResponse(outputs, Runs().metadata, Timings(0, 1, one.rows))


def fewer_rows(one: InferRequest) -> InferResponse:
    outputs = {"y": (2 * one.inputs["x"] + 1)[:1]}
    return InferResponse(outputs, Runs().metadata, Timings(0, 1, one.rows))


@pytest.mark.parametrize("behaviour", [without_rows, fewer_rows])
def test_a_model_whose_outputs_do_not_keep_rows_is_run_separately(behaviour: Any) -> None:
    with Bench(Runs(behaviour), max_rows=8) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n) for n in (1, 2, 3)])
        for n, one in enumerate(sent, 1):
            found = result(one)
            assert values(found) == answer(n)
            assert isinstance(found, InferResponse)
            if "mean" in found.outputs:
                assert float(found.outputs["mean"]) == n
        assert bench.scheduled.max_rows == 1, "it is not tried again"
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(request(4), request(5))
        assert [only(s) for s in sent] == [answer(4), answer(5)]
    assert bench.runs.rows == [1, 3, 1, 1, 1, 1, 1, 1]


def test_closing_closes_the_model_inside() -> None:
    with Bench() as bench:
        bench.scheduled.close()
    assert bench.runs.closed


def test_an_error_of_the_model_is_the_answer() -> None:
    refused = InvalidArgument("no")
    with Bench(Runs(lambda _: refused)) as bench:
        assert list(bench.scheduled.infer((request(1),))) == [refused]
    assert bench.statistics.runs == {}, "a run that failed is not counted as one"


def test_waiting_counts_those_in_line() -> None:
    with Bench() as bench:
        with bench.runs.held():
            bench.occupy()
            assert bench.scheduled.waiting == 0
            bench.queue_up(*[request(n) for n in range(5)])
            assert bench.scheduled.waiting == 5
        wait_until(lambda: bench.scheduled.waiting == 0)
