"""Models that fail in every way: nobody is left waiting, and no instance is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from crossfade.runtimes.core import errors
from crossfade.runtimes.core.errors import Code, CrossfadeError
from crossfade.runtimes.core.model import InferRequest, InferResult
from tests.serving.batching.fakes import (
    PATIENCE_S,
    Bench,
    Runs,
    answer,
    error,
    only,
    request,
    values,
    wait_until,
)


def fails_on(bad: float, failure: CrossfadeError) -> Callable[[InferRequest], InferResult | None]:
    return lambda one: failure if (one.inputs["x"] == bad).any() else None


@pytest.mark.parametrize(
    "failure",
    [errors.InvalidArgument("bad"), errors.Internal("bad"), errors.FailedPrecondition("bad")],
    ids=lambda failure: failure.code.name,
)
def test_one_bad_request_in_a_batch_fails_alone(failure: CrossfadeError) -> None:
    with Bench(Runs(fails_on(2, failure)), max_rows=8) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n, rows=2) for n in (1, 2, 3)])
        assert error(sent[1]) is failure
        assert (only(sent[0]), only(sent[2])) == (answer(1, 2), answer(3, 2))
        assert bench.scheduled.max_rows == 8
        bench.assert_all_instances_work()
    assert bench.runs.numbers[:5] == [[0], [1, 1, 2, 2, 3, 3], [1, 1], [2, 2], [3, 3]]
    assert bench.statistics.closed["separated"] == 2


@pytest.mark.parametrize(
    "failure",
    [
        errors.Unavailable("no"),
        errors.ResourceExhausted("no", retry_after_s=2),
        errors.NotFound(""),
    ],
    ids=lambda failure: failure.code.name,
)
def test_a_failure_that_is_nobodys_fault_is_not_tried_again(failure: CrossfadeError) -> None:
    with Bench(Runs(fails_on(2, failure)), max_rows=8) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n) for n in (1, 2, 3)])
        assert [error(s) for s in sent] == [failure] * 3
        assert bench.runs.numbers == [[0], [1, 2, 3]]
        bench.assert_all_instances_work()


def raises(kind: type[BaseException]) -> Callable[[InferRequest], InferResult]:
    def behaviour(_: InferRequest) -> InferResult:
        raise kind("the model's own secret text")

    return behaviour


class WrongCount(Runs):
    """Answers with another number of results than it was given requests."""

    def __init__(self, results: int) -> None:
        super().__init__(lambda one: None)
        self.results = results

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        right = super().infer(requests)
        return right if self.behaviour is None else list(right) * self.results


BROKEN: dict[str, Callable[[], Runs]] = {
    "raises": lambda: Runs(raises(RuntimeError)),
    "is out of memory": lambda: Runs(raises(MemoryError)),
    "answers nothing": lambda: WrongCount(0),
    "answers with something else": lambda: Runs(lambda _: object()),  # type: ignore[arg-type,return-value]
}


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("instances", [1, 3])
def test_a_broken_model_answers_everybody_and_loses_no_instance(
    make: Callable[[], Runs], instances: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Bench(make(), max_rows=4, instances=instances) as bench:
        (alone,) = bench.scheduled.infer((request(1),))
        assert isinstance(alone, CrossfadeError)
        with bench.runs.held():
            busy = bench.occupy()
            sent = bench.queue_up(*[request(n) for n in range(2, 12)])
        for one in (*busy, *sent):
            found = error(one)
            assert found.code is Code.INTERNAL
            assert "secret" not in found.message
        assert bench.scheduled.waiting == 0
        bench.assert_all_instances_work()
    assert all(record.levelno == logging.ERROR for record in caplog.records)
    assert caplog.records, "what happened is in the log"


def test_a_broken_model_behind_a_delay() -> None:
    with Bench(Runs(raises(RuntimeError)), max_rows=3, max_delay_s=60) as bench:
        sent = [bench.call(request(n)) for n in range(3)]
        assert {error(s).code for s in sent} == {Code.INTERNAL}
        bench.runs.behaviour = None
        sent = [bench.call(request(n)) for n in range(3)]
        assert [only(s) for s in sent] == [answer(n) for n in range(3)]


def test_a_model_that_fails_for_some_of_a_callers_requests() -> None:
    refused = errors.InvalidArgument("bad")
    with Bench(Runs(fails_on(2, refused)), max_rows=2) as bench:
        found = bench.scheduled.infer([request(n) for n in range(5)])
    assert found[2] is refused
    assert [values(f) for n, f in enumerate(found) if n != 2] == [answer(n) for n in (0, 1, 3, 4)]


def test_inputs_that_cannot_be_stacked_after_all_harm_nobody_else() -> None:
    """Equal keys, but one lacks the rows that it claims: the batch is wrong, the model is not."""
    liar: Any = request(2)
    liar = InferRequest(liar.inputs, rows=3)
    with Bench(max_rows=8) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(request(1), liar, request(3))
        assert [only(s) for s in sent] == [answer(1), answer(2), answer(3)]
        bench.assert_all_instances_work()


def test_the_line_moves_on_when_its_first_fails() -> None:
    with Bench(Runs(fails_on(1, errors.Unavailable("no"))), max_rows=1) as bench:
        with bench.runs.held():
            bench.occupy()
            sent = bench.queue_up(*[request(n) for n in (1, 2, 1, 3)])
            wait_until(lambda: bench.scheduled.waiting == 4)
        found = [s.result(PATIENCE_S)[0] for s in sent]
    assert [isinstance(f, CrossfadeError) for f in found] == [True, False, True, False]
