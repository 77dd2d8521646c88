"""Deadlines, cancellation and full queues: what is never run, and who hears of it when."""

from __future__ import annotations

import threading
import time

import pytest

from crossfade.runtimes.core.errors import Code, DeadlineExceeded
from crossfade.serving.transport.cancellation import CancelToken
from tests.serving.batching.fakes import (
    PATIENCE_S,
    Bench,
    answer,
    error,
    only,
    request,
    result,
    wait_until,
)


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


# -- deadlines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_delay_s", [0.0, 60.0])
def test_a_request_whose_deadline_has_passed_is_never_run(max_delay_s: float) -> None:
    with Bench(max_rows=4, max_delay_s=max_delay_s) as bench:
        (found,) = bench.scheduled.infer((request(1, deadline_s=time.monotonic()),))
        assert isinstance(found, DeadlineExceeded)
        assert bench.runs.rows == []
        assert bench.scheduled.waiting == 0
        bench.scheduled.max_delay_s = 0
        bench.assert_all_instances_work()


def test_one_that_expires_in_line_hears_at_once_and_is_never_run() -> None:
    with Bench(max_rows=4) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(request(1, deadline_s=soon(0.05)), request(2))
            assert error(sent[0]).code is Code.DEADLINE_EXCEEDED  # while the model is still busy
            assert bench.scheduled.waiting == 1
        assert only(sent[1]) == answer(2)
    assert bench.runs.numbers == [[0], [2]]


def test_one_that_expires_while_it_runs_hears_at_once() -> None:
    with Bench(max_rows=4) as bench:
        with bench.runs.held():
            busy = bench.occupy()
            first, second = bench.queue_up(request(1), request(2, deadline_s=soon(0.3)))
            bench.runs.release(0)
            assert only(busy[0]) == answer(0)
            bench.runs.wait_active(1)
            assert bench.runs.numbers[1:] == [[1, 2]]
            assert error(second).code is Code.DEADLINE_EXCEEDED
            assert not first.done()
        assert only(first) == answer(1)
        bench.assert_all_instances_work()


def test_each_request_of_a_caller_has_a_deadline_of_its_own() -> None:
    with Bench(max_rows=4) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.call(
                request(1), request(2, deadline_s=time.monotonic()), request(3, deadline_s=soon(60))
            )
            wait_until(lambda: bench.scheduled.waiting == 2)
        one, two, three = sent.result(PATIENCE_S)
        assert isinstance(two, DeadlineExceeded)
        assert not isinstance(one, Exception)
        assert not isinstance(three, Exception)
    assert bench.runs.numbers == [[0], [1, 3]]


# -- cancellation -------------------------------------------------------------------------------


@pytest.mark.parametrize("max_delay_s", [0.0, 60.0])
def test_one_that_was_cancelled_before_is_never_run(max_delay_s: float) -> None:
    token = CancelToken()
    token.set()
    with Bench(max_rows=4, max_delay_s=max_delay_s) as bench:
        sent = bench.call(request(1, cancelled=token))
        assert error(sent).code is Code.CANCELLED
        assert bench.runs.rows == []
        assert bench.scheduled.waiting == 0


def test_one_that_is_cancelled_in_line_leaves_it_at_once() -> None:
    token = CancelToken()
    with Bench(max_rows=4, max_size=2) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(request(1), request(2, cancelled=token))
            token.set()
            assert bench.scheduled.waiting == 1
            assert error(sent[1]).code is Code.CANCELLED  # while the model is still busy
            sent += bench.queue_up(request(3))  # in the place that came free
            assert error(bench.call(request(4))).code is Code.RESOURCE_EXHAUSTED
        assert (only(sent[0]), only(sent[2])) == (answer(1), answer(3))
    assert bench.runs.numbers == [[0], [1, 3]]


def test_one_that_is_cancelled_while_it_runs_hears_at_once() -> None:
    token = CancelToken()
    with Bench(max_rows=4) as bench:
        with bench.runs.held():
            bench.occupy()
            first, second = bench.queue_up(request(1), request(2, cancelled=token))
            bench.runs.release(0)
            wait_until(lambda: bench.runs.numbers[1:] == [[1, 2]])
            token.set()
            assert error(second).code is Code.CANCELLED
            assert not first.done()
        assert only(first) == answer(1)


def test_cancelling_an_answered_request_changes_nothing() -> None:
    token = CancelToken()
    with Bench(max_rows=4) as bench:
        with bench.runs.held():
            bench.occupy()
            (sent,) = bench.queue_up(request(1, cancelled=token))
        assert only(sent) == answer(1)
        token.set()
        assert only(sent) == answer(1)
        bench.assert_all_instances_work()


def test_the_leader_of_a_delayed_batch_may_be_cancelled() -> None:
    """Others have joined it by then; they must not wait for somebody who has gone."""
    token = CancelToken()
    with Bench(max_rows=3, max_delay_s=60) as bench:
        sent = bench.queue_up(request(1, cancelled=token), request(2))
        token.set()
        assert bench.scheduled.waiting == 1
        sent += [bench.call(request(3)), bench.call(request(4))]
        assert [only(s) for s in sent[1:]] == [answer(2), answer(3), answer(4)]
        assert error(sent[0]).code is Code.CANCELLED
    assert bench.runs.rows == [3]


# -- limits -------------------------------------------------------------------------------------


def test_one_more_than_the_queue_holds_is_refused_with_a_hint() -> None:
    with Bench(max_size=3) as bench:
        with bench.runs.held():
            busy = bench.occupy()
            sent = bench.queue_up(*[request(n) for n in (1, 2, 3)])
            refused = error(bench.call(request(4)))
            assert refused.code is Code.RESOURCE_EXHAUSTED
            assert refused.message == "the queue of model 'm' is full (3 requests wait)"
            assert refused.retry_after_s is not None
            assert 0 < refused.retry_after_s < 5
        assert [only(s) for s in (*busy, *sent)] == [answer(n) for n in range(4)]
        bench.assert_all_instances_work()


def test_a_caller_who_brings_more_than_the_queue_holds_gets_the_rest_refused() -> None:
    with Bench(max_size=3) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.call(*[request(n) for n in range(5)])
            wait_until(lambda: bench.scheduled.waiting == 3)
        found = sent.result(PATIENCE_S)
    codes = [getattr(f, "code", None) for f in found]
    assert codes == [None] * 3 + [Code.RESOURCE_EXHAUSTED] * 2


def test_those_who_have_given_up_take_no_place_in_line() -> None:
    with Bench(max_size=1) as bench:
        with bench.runs.held():
            bench.occupy()
            expired = bench.queue_up(request(1, deadline_s=soon(0.02)))
            assert error(expired[0]).code is Code.DEADLINE_EXCEEDED
            sent = bench.queue_up(request(2))
        assert only(sent[0]) == answer(2)


def test_one_that_waited_too_long_is_refused() -> None:
    with Bench(timeout_ms=50) as bench:
        with bench.runs.held():
            busy = bench.occupy()
            began_s = time.monotonic()
            refused = error(bench.call(request(1)))
            assert time.monotonic() - began_s > 0.045
            assert refused.code is Code.UNAVAILABLE
            assert refused.message == "the request waited 50 ms in the queue of model 'm'"
            assert refused.retry_after_s is not None
            assert refused.retry_after_s > 0
            assert bench.scheduled.waiting == 0
        assert only(busy[0]) == answer(0)
    assert bench.runs.numbers == [[0]]


def test_the_timeout_is_for_waiting_not_for_running() -> None:
    with Bench(timeout_ms=200, max_rows=4) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(request(1), request(2))
            bench.runs.release(0)
            wait_until(lambda: bench.runs.numbers[1:] == [[1, 2]])
            time.sleep(0.25)
            before_s = time.process_time()
            time.sleep(0.1)
            assert time.process_time() - before_s < 0.06, "it waits asleep"
        assert [only(s) for s in sent] == [answer(1), answer(2)]


def test_the_deadline_counts_where_it_is_earlier_than_the_timeout() -> None:
    with Bench(timeout_ms=60_000) as bench, bench.runs.held():
        bench.occupy()
        sent = bench.call(request(1, deadline_s=soon(0.05)))
        assert error(sent).code is Code.DEADLINE_EXCEEDED
    assert bench.runs.numbers == [[0]]


def test_many_cancel_while_the_batch_is_formed() -> None:
    """Cancellation races with the leader who takes the queue apart; everybody is answered once."""
    with Bench(max_rows=16, instances=2) as bench:
        for _ in range(20):
            tokens = [CancelToken() for _ in range(12)]
            begin = threading.Barrier(2)

            def cancel(
                tokens: list[CancelToken] = tokens, begin: threading.Barrier = begin
            ) -> None:
                begin.wait(PATIENCE_S)
                for token in tokens[::2]:
                    token.set()

            canceller = threading.Thread(target=cancel, daemon=True)
            canceller.start()
            with bench.runs.held():
                busy = bench.occupy()
                sent = bench.queue_up(*[request(n, cancelled=t) for n, t in enumerate(tokens)])
                begin.wait(PATIENCE_S)
            canceller.join()
            [only(b) for b in busy]
            for n, one in enumerate(sent):
                found = result(one)
                if n % 2 or not isinstance(found, Exception):
                    assert only(one) == answer(n)
                else:
                    assert found.code is Code.CANCELLED
        bench.assert_all_instances_work()
