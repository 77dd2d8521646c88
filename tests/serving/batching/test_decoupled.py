"""The Model of a session that gives any number of responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest

from crossfade.runtimes.core.errors import Code, CrossfadeError, Unavailable
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    Model,
    ModelMetadata,
    Signature,
    StreamingSession,
    Tensors,
    TensorSpec,
)
from crossfade.serving.batching.decoupled import Decoupled
from crossfade.serving.metrics.statistics import Statistics

SIGNATURE = Signature((TensorSpec("n", "INT32", (1,)),), (TensorSpec("y", "INT32", (1,)),))


class Counting:
    """Counts up to the input, then fails if the test says so."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.signatures: Mapping[str, Signature] = {"serving_default": SIGNATURE}
        self.failure = failure
        self.given = 0
        self.closed = False

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        raise AssertionError("only streams")

    def stream(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Iterator[Tensors]:
        for number in range(int(inputs["n"][0])):
            self.given += 1
            yield {"y": np.array([number], np.int32)}
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.closed = True


class Gone:
    """A caller who goes after some questions."""

    def __init__(self, after: int) -> None:
        self.left = after

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0

    def subscribe(self, callback: Callable[[], None]) -> None:
        raise AssertionError("nothing waits here")


def made(session: Counting) -> tuple[Decoupled, Statistics]:
    assert isinstance(session, StreamingSession)
    statistics = Statistics()
    metadata = ModelMetadata("m", 1, "fake", session.signatures)
    model = Decoupled(session, metadata, statistics)
    assert isinstance(model, Model)
    return model, statistics


def ask(count: int, cancelled: Gone | None = None) -> InferRequest:
    return InferRequest({"n": np.array([count], np.int32)}, cancelled=cancelled)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_every_response_in_order(count: int) -> None:
    model, statistics = made(Counting())
    numbers = []
    for result in model.stream(ask(count)):
        assert isinstance(result, InferResponse)
        assert not result.final
        numbers.append(int(result.outputs["y"][0]))
    assert numbers == list(range(count))
    assert (statistics.success, statistics.failure) == (1, {})


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (Unavailable("busy"), Code.UNAVAILABLE, "busy"),
        (ZeroDivisionError("secret"), Code.INTERNAL, "quote the id"),
    ],
)
def test_an_error_is_the_last(failure: Exception, code: Code, says: str) -> None:
    model, statistics = made(Counting(failure))
    first, last = model.stream(ask(1))
    assert isinstance(first, InferResponse)
    assert isinstance(last, CrossfadeError)
    assert last.code is code
    assert says in last.message
    assert "secret" not in last.message
    assert (statistics.success, statistics.failure) == (0, {code.name: 1})


def test_nothing_more_for_a_caller_who_has_gone() -> None:
    session = Counting()
    model, statistics = made(session)
    *_, last = model.stream(ask(1000, Gone(after=3)))
    assert isinstance(last, CrossfadeError)
    assert last.code is Code.CANCELLED
    assert session.given == 4
    assert statistics.failure == {"CANCELLED": 1}


def test_a_caller_who_takes_no_more_is_counted() -> None:
    model, statistics = made(Counting())
    answers = model.stream(ask(10))
    next(answers)
    del answers
    assert statistics.failure == {"CANCELLED": 1}


def test_one_response_is_not_to_be_had() -> None:
    session = Counting()
    model, _ = made(session)
    for result in model.infer([ask(1), ask(2)]):
        assert isinstance(result, CrossfadeError)
        assert result.code is Code.UNIMPLEMENTED
    assert session.given == 0
    model.close()
    assert session.closed
