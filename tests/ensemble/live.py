"""Models that answer as a test tells them to, and who leases them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crossfade.ensemble.crew import Crew
from crossfade.ensemble.members import Member
from crossfade.ensemble.model import Ensemble
from crossfade.ensemble.plan import Kind
from crossfade.runtimes.core.errors import CrossfadeError, Unavailable
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    ModelRef,
    Signature,
    Tensors,
    TensorSpec,
)

Run = Callable[[InferRequest], Tensors | CrossfadeError]


class FakeModel:
    """Answers each request with ``run``; remembers what it was asked."""

    def __init__(
        self,
        run: Run,
        *,
        inputs: Sequence[TensorSpec] = (TensorSpec("x", "FP32", (-1, 3)),),
        outputs: Sequence[TensorSpec] = (TensorSpec("scores", "FP32", (-1, 3)),),
        labels: Mapping[str, Sequence[str]] | None = None,
        max_batch_size: int = 8,
        quantization: Mapping[str, tuple[float, int]] | None = None,
    ) -> None:
        signature = Signature.derive(inputs, outputs)
        self.metadata = ModelMetadata(
            "fake",
            1,
            "fake",
            {"serving_default": signature},
            labels or {},
            max_batch_size if signature.batched else 0,
            quantization=quantization or {},
        )
        self.run = run
        self.calls: list[list[InferRequest]] = []
        self.threads: list[int] = []

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        self.calls.append(list(requests))
        self.threads.append(threading.get_ident())
        found = [self.run(request) for request in requests]
        return [
            one if isinstance(one, CrossfadeError) else InferResponse(one, self.metadata)
            for one in found
        ]

    def close(self) -> None:
        """Nothing."""


class _Lease:
    def __init__(self, live: FakeLive, model: FakeModel) -> None:
        self._live, self._model = live, model

    def __enter__(self) -> FakeModel:
        self._live.held += 1
        return self._model

    def __exit__(self, *exc: object) -> None:
        self._live.held -= 1


class FakeLive:
    """Models by name; they may be changed at any time."""

    def __init__(self, **models: FakeModel) -> None:
        self.models = models
        self.held = 0

    def lease(self, ref: ModelRef, deadline_s: float | None = None) -> _Lease:
        return _Lease(self, self._find(ref))

    def metadata(self, ref: ModelRef) -> ModelMetadata:
        return self._find(ref).metadata

    def _find(self, ref: ModelRef) -> FakeModel:
        if ref.name not in self.models:
            raise Unavailable(f"'{ref.name}' is not at ready state")
        return self.models[ref.name]


def echo(labels: Sequence[str] = (), **keys: Any) -> FakeModel:
    """Answers with its input as scores for these labels."""
    return FakeModel(
        lambda request: {"scores": request.inputs["x"]},
        labels={"scores": labels} if labels else None,
        **keys,
    )


def failing(error: CrossfadeError, labels: Sequence[str] = ()) -> FakeModel:
    return FakeModel(lambda _: error, labels={"scores": labels} if labels else None)


def ensemble(kind: Kind, live: FakeLive, *members: Member | str, **keys: Any) -> Ensemble:
    """An ensemble of the live models; without ``members`` of all of them."""
    named = [
        one if isinstance(one, Member) else Member(one, ModelRef(one))
        for one in members or live.models
    ]
    return Ensemble(
        "e",
        1,
        named,
        kind,
        live=live,
        crew=Crew(8),
        seen=lambda face: face,
        record=keys.pop("record", lambda number, results: None),
        **keys,
    )


def request(*rows: Sequence[float], name: str = "x", **keys: Any) -> InferRequest:
    return InferRequest({name: np.array(rows, np.float32)}, rows=len(rows), **keys)


def answered(result: InferResult) -> InferResponse:
    assert isinstance(result, InferResponse), result
    return result
