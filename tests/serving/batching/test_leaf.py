"""The Model at the bottom: foreign errors end here, and every request has a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from crossfade.runtimes.core.errors import Code, CrossfadeError, Unavailable
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    Model,
    ModelMetadata,
    Signature,
    Tensors,
    TensorSpec,
)
from crossfade.serving.batching.leaf import Leaf

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),), True)


class Session:
    """Doubles; refuses what the test tells it to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.signatures: Mapping[str, Signature] = {"serving_default": SIGNATURE}
        self.failure = failure
        self.calls: list[tuple[str, Sequence[str]]] = []
        self.closed = 0

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        self.calls.append((signature, outputs))
        if self.failure is not None and (inputs["x"] == 13).any():
            raise self.failure
        return {"y": 2 * inputs["x"]}

    def close(self) -> None:
        self.closed += 1


def leaf(session: Session) -> Leaf:
    return Leaf(session, ModelMetadata("m", 4, "fake", session.signatures, max_batch_size=8))


def ask(*numbers: float) -> InferRequest:
    x = np.array(numbers, np.float32)
    return InferRequest({"x": x}, outputs=("y",), rows=len(numbers))


def test_every_request_is_a_run_of_its_own() -> None:
    session = Session()
    model: Model = leaf(session)
    one, two = model.infer([ask(1, 2), ask(3)])
    assert isinstance(one, InferResponse)
    assert isinstance(two, InferResponse)
    assert (one.outputs["y"].tolist(), two.outputs["y"].tolist()) == ([2, 4], [6])
    assert (one.timings.batch_rows, two.timings.batch_rows) == (2, 1)
    assert one.timings.queue_ns == 0
    assert one.timings.infer_ns > 0
    assert one.model is model.metadata
    assert session.calls == [("serving_default", ("y",))] * 2


def test_one_that_fails_fails_no_neighbour() -> None:
    refused = Unavailable("not now", retry_after_s=1)
    results = leaf(Session(refused)).infer([ask(1), ask(13), ask(2)])
    assert results[1] is refused
    assert all(isinstance(results[n], InferResponse) for n in (0, 2))


@pytest.mark.parametrize("failure", [ValueError("/secret/path"), MemoryError(), KeyError("x")])
def test_foreign_errors_are_logged_and_not_told(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    (found,) = leaf(Session(failure)).infer([ask(13)])
    assert isinstance(found, CrossfadeError)
    assert found.code is Code.INTERNAL
    assert "secret" not in found.message
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is failure
    assert record.args is not None
    assert str(record.args[1]) in found.message, "the id that the client quotes"  # type: ignore[index]


def test_closing_closes_the_session() -> None:
    session = Session()
    leaf(session).close()
    assert session.closed == 1
