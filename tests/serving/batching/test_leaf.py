"""The Model at the bottom: what a session is told of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes import deadline, trace
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import (
    InferRequest,
    ModelMetadata,
    Signature,
    Tensors,
    TensorSpec,
)
from crossfade.serving.batching.leaf import Leaf
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.batching.stacking import stack
from crossfade.serving.config.model_config import Queue
from crossfade.serving.metrics.statistics import Statistics
from tests.spans import KeptSpan

SPEC = TensorSpec("x", "FP32", (-1,))
X = {"x": np.zeros(1, np.float32)}


class Notes:
    """A session that writes down until when it is wanted."""

    signatures: Mapping[str, Signature] = {"serving_default": Signature((SPEC,), (SPEC,))}

    def __init__(self) -> None:
        self.seen: list[float | None] = []

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        self.seen.append(deadline.of_run.get())
        if inputs["x"][0]:
            raise InvalidArgument("as told")
        return inputs

    def close(self) -> None:
        pass


@pytest.fixture
def leaf() -> tuple[Leaf, Notes]:
    session = Notes()
    return Leaf(session, ModelMetadata("m", 1, "fake", session.signatures)), session


def test_the_deadline_is_that_of_the_request(leaf: tuple[Leaf, Notes]) -> None:
    model, session = leaf
    bad = {"x": np.ones(1, np.float32)}
    model.infer(
        (InferRequest(X, deadline_s=5.0), InferRequest(bad, deadline_s=6.0), InferRequest(X))
    )
    assert session.seen == [5.0, 6.0, None]


@pytest.mark.parametrize("indirect", [False, True])
def test_who_waits_for_somebody_else_is_never_quick(
    leaf: tuple[Leaf, Notes], indirect: bool
) -> None:
    queue = Scheduled(leaf[0], Statistics(), instances=1, queue=Queue(), indirect=indirect)
    queue.infer((InferRequest(X),))
    assert queue.is_quick is not indirect


def test_the_trace_is_that_of_the_request() -> None:
    seen: list[Any] = []

    class Far(Notes):
        def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
            seen.append(trace.headers())
            return super().run(inputs, signature, outputs)

    session = Far()
    leaf = Leaf(session, ModelMetadata("m", 1, "fake", session.signatures))
    bad = {"x": np.ones(1, np.float32)}
    leaf.infer((InferRequest(bad, trace=KeptSpan("one")), InferRequest(X)))
    dropped, kept = KeptSpan("dropped", recorded=False), KeptSpan("kept")
    leaf.infer((stack([InferRequest(X, trace=dropped), InferRequest(X, trace=kept)]),))
    leaf.infer((stack([InferRequest(X, trace=dropped), InferRequest(X, trace=dropped)]),))
    named = [dict(headers).get("traceparent") for headers in seen]
    assert named == ["one", None, "kept", "dropped"]
