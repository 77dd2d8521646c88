"""A Model for tests: computes with numpy, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Signature,
    Tensors,
    TensorSpec,
    Timings,
)
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.processing.answer import Quantized
from crossfade.serving.processing.build import around
from crossfade.serving.processing.processed import Processed

Shape = tuple[int, ...] | None
Run = Callable[[Tensors], dict[str, Any]]


def specs(**shapes: tuple[str, Shape]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, *what) for name, what in shapes.items())


class Inner:
    """Answers each request with ``run`` of its inputs; keeps the requests."""

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        run: Run,
        labels: dict[str, list[str]] | None = None,
    ) -> None:
        signature = Signature.derive(inputs, outputs)
        other = Signature.derive(specs(t=("INT32", (-1,))), specs(u=("INT32", (-1,))))
        self.metadata = ModelMetadata(
            "m",
            3,
            "fake",
            {"serving_default": signature, "other": other},
            labels or {},
            4096 if signature.batched else 0,
        )
        self._run = run
        self.asked: list[InferRequest] = []
        self.closed = False

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        self.asked += requests
        return [self._one(request) for request in requests]

    def _one(self, request: InferRequest) -> InferResult:
        try:
            outputs = self._run(request.inputs)
        except CrossfadeError as error:
            return error
        wanted = {n: outputs[n] for n in request.outputs or outputs}
        return InferResponse(wanted, self.metadata, Timings(5, 7, request.rows))

    def close(self) -> None:
        self.closed = True


def processed(
    inner: Inner,
    quantized: Quantized | None = None,
    names: Sequence[str] = (),
    folder: Path = Path(),
    **config: Any,
) -> Processed:
    made = around(
        inner.metadata, ModelConfig.model_validate(config), quantized or {}, names, folder
    )
    assert made is not None
    return made(inner)


def texts(*values: bytes) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array
