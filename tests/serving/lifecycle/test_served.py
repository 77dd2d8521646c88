"""A version and its leases: alive while anybody holds one, closed exactly once after the last."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from crossfade.runtimes.core.model import (
    InferRequest,
    InferResult,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.config.model_config import ModelConfig, Queue
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.metrics.statistics import Statistics

X = TensorSpec("x", "FP32", (-1,))


class Closable:
    """A model that only counts how often it is closed."""

    def __init__(self, failure: Exception | None = None) -> None:
        signatures = {"a": Signature((X,), (X,)), "serving_default": Signature((X,), (X,))}
        self.metadata = ModelMetadata("m", 1, "fake", signatures)
        self.closed = 0
        self._failure = failure

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        return []

    def close(self) -> None:
        self.closed += 1
        if self._failure is not None:
            raise self._failure


def served(model: Closable) -> Served:
    statistics = Statistics()
    queue = Scheduled(model, statistics, instances=1, queue=Queue())
    return Served(model, statistics, ModelConfig(), queue)


def test_it_serves_until_it_is_retired() -> None:
    model = Closable()
    one = served(model)
    assert one.acquire()
    with one as leased:
        assert leased is model
    assert model.closed == 0
    assert not one.wait_closed(0)
    one.retire()
    assert model.closed == 1
    assert one.wait_closed(0)
    assert not one.acquire()


def test_a_lease_keeps_it_alive() -> None:
    model = Closable()
    one = served(model)
    assert one.acquire()
    assert one.acquire()
    one.retire()
    assert model.closed == 0
    assert not one.acquire(), "no new ones"
    with one:
        pass
    assert model.closed == 0
    with one:
        assert model.closed == 0
    assert model.closed == 1
    assert one.wait_closed(0)


def test_a_lease_is_given_back_when_its_holder_fails() -> None:
    model = Closable()
    one = served(model)
    assert one.acquire()
    with pytest.raises(KeyError), one:
        raise KeyError
    one.retire()
    assert model.closed == 1


def test_retiring_twice_is_retiring_once() -> None:
    model = Closable()
    one = served(model)
    assert one.acquire()
    one.retire()
    one.retire()
    assert model.closed == 0, "the lease that is out still counts"
    with one:
        pass
    assert model.closed == 1


def test_a_model_that_cannot_be_closed_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    one = served(Closable(RuntimeError("the library is gone")))
    assert one.acquire()
    one.retire()
    with one:
        pass
    assert one.wait_closed(0)
    assert "the library is gone" in caplog.text


def test_leases_and_retirement_from_many_threads() -> None:
    """Whoever gets a lease finds the model open; it is closed once, and nobody gets one after."""
    for _ in range(50):
        model = Closable()
        one = served(model)
        begin = threading.Barrier(5)
        faults: list[str] = []

        def use(
            one: Served = one,
            model: Closable = model,
            begin: threading.Barrier = begin,
            faults: list[str] = faults,
        ) -> None:
            begin.wait(10)
            while one.acquire():
                with one:
                    if model.closed:
                        faults.append("closed under a lease")

        threads = [threading.Thread(target=use, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        begin.wait(10)
        one.retire()
        for thread in threads:
            thread.join(10)
        assert one.wait_closed(0)
        assert (model.closed, faults) == (1, [])


def test_every_signature_has_its_validator() -> None:
    one = served(Closable())
    assert one.validators.keys() == {"a", "serving_default"}
    assert one.default_signature == "serving_default"
