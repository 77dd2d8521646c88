"""Models that are a function, for tests of what is made of Models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
)

METADATA = ModelMetadata(
    "flowers",
    1,
    "ensemble",
    {
        "serving_default": Signature.derive(
            [TensorSpec("x", "FP32", (-1, 2))], [TensorSpec("y", "FP32", (-1, 3))]
        )
    },
)
Answer = Callable[[InferRequest], Tensors | CrossfadeError]


class FunctionModel:
    """Answers with what a function makes of each request; remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.metadata = METADATA
        self.answer = answer
        self.asked: list[Sequence[InferRequest]] = []
        self.closed = False

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        self.asked.append(requests)
        found = [self.answer(request) for request in requests]
        return [
            one if isinstance(one, CrossfadeError) else InferResponse(one, self.metadata)
            for one in found
        ]

    def close(self) -> None:
        """See ``Model.close``."""
        self.closed = True


def request(rows: int = 1, **parameters: object) -> InferRequest:
    """A request of ones."""
    return InferRequest({"x": np.ones((rows, 2), np.float32)}, parameters=parameters, rows=rows)
