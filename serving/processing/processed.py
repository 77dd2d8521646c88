"""A Model whose clients send pictures or rows and get a task's answer; the one inside does not."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence

import numpy as np

from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
    Tensor,
    Tensors,
)
from crossfade.serving.processing.answer import Answer
from crossfade.serving.processing.framing import Frame
from crossfade.serving.processing.images import ImageInput
from crossfade.serving.processing.table import ColumnInputs, TableInput

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Processing:
    """What is done around a model.

    Attributes:
        metadata: as clients see the model.
        signature: the signature that it is done for; requests for others pass.
        image: what becomes a picture; ``None`` is nothing.
        key: an input of strings that comes back as the output of that name.
        answer: what becomes of the outputs; ``None`` leaves them as they are.
        one_by_one: the model takes one row a run, so that the rows of a request are requests.
        table: what becomes of columns; ``None`` is nothing.
    """

    metadata: ModelMetadata
    signature: str
    image: ImageInput | None
    key: str | None
    answer: Answer | None
    one_by_one: bool
    table: TableInput | ColumnInputs | None = None


@dataclasses.dataclass(slots=True)
class _Ready:
    """One request, ready for the model, or what is wrong with it."""

    inner: Sequence[InferRequest]
    error: CrossfadeError | None = None
    frames: Sequence[Frame] | None = None
    key: Tensor | None = None
    input_ns: int = 0
    passes: bool = False


class Processed:
    """See ``Processing``. Thread-safe; pictures are decoded in the thread that brings them."""

    def __init__(self, inner: Model, processing: Processing) -> None:
        self._inner = inner
        self._does = processing
        self.metadata: ModelMetadata = processing.metadata
        signature = self.metadata.signatures[processing.signature]
        self._outputs = tuple(spec.name for spec in signature.outputs)

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        ready = [self._prepare(request) for request in requests]
        inner = [request for one in ready for request in one.inner]
        results = iter(self._inner.infer(inner) if inner else ())
        return [
            one.error or self._finish(request, one, [next(results) for _ in one.inner])
            for request, one in zip(requests, ready, strict=True)
        ]

    def close(self) -> None:
        """See ``Model.close``."""
        self._inner.close()

    def _prepare(self, request: InferRequest) -> _Ready:
        if request.signature != self._does.signature:
            return _Ready([request], passes=True)
        began_ns = time.perf_counter_ns()
        try:
            ready = self._read(request)
        except CrossfadeError as error:
            return _Ready((), error)
        except Exception as error:
            return _Ready((), Internal.hide(error, _log, f"model {self.metadata.name}"))
        ready.input_ns = time.perf_counter_ns() - began_ns
        return ready

    def _read(self, request: InferRequest) -> _Ready:
        does, inputs = self._does, dict(request.inputs)
        key = None if does.key is None else inputs.pop(does.key, None)
        if does.key in request.outputs and key is None:  # some clients ask for all there is
            key = np.full(request.rows, b"", np.object_)
        if does.table is not None:
            inputs = does.table.read(inputs, request.rows)
        image, frames = does.image, None
        if image is not None:
            given = inputs.get(image.name)
            if given is not None and given.dtype == np.object_:
                del inputs[image.name]
                inputs[image.spec.name], frames = image.read(request, given)
        if does.answer is not None:
            outputs = does.answer.needs
        else:
            outputs = tuple(name for name in request.outputs if name != does.key)
        inner = dataclasses.replace(request, inputs=inputs, outputs=outputs)
        if not does.one_by_one:
            return _Ready([inner], None, frames, key)
        rows = [
            dataclasses.replace(
                inner, inputs={n: a[at : at + 1] for n, a in inputs.items()}, rows=1
            )
            for at in range(len(next(iter(inputs.values()))))
        ]
        return _Ready(rows, None, frames, key)

    def _finish(
        self, request: InferRequest, ready: _Ready, results: Sequence[InferResult]
    ) -> InferResult:
        if ready.passes:
            return results[0]
        responses: list[InferResponse] = []
        for result in results:
            if isinstance(result, CrossfadeError):
                return result
            responses.append(result)
        began_ns = time.perf_counter_ns()
        try:
            outputs = self._answer(request, ready, _together(responses))
        except CrossfadeError as error:
            return error
        except Exception as error:
            return Internal.hide(error, _log, f"model {self.metadata.name}")
        first = responses[0]
        timings = dataclasses.replace(
            first.timings,
            infer_ns=sum(response.timings.infer_ns for response in responses),
            input_ns=ready.input_ns,
            output_ns=time.perf_counter_ns() - began_ns,
        )
        return dataclasses.replace(first, outputs=outputs, model=self.metadata, timings=timings)

    def _answer(self, request: InferRequest, ready: _Ready, found: Tensors) -> Tensors:
        made = dict(found)
        if self._does.answer is not None:
            made = self._does.answer.make(found, ready.frames)
        if self._does.key is not None and ready.key is not None:
            made[self._does.key] = ready.key
        wanted = request.outputs or self._outputs
        return {name: made[name] for name in wanted if name in made}


def _together(responses: Sequence[InferResponse]) -> Tensors:
    first = responses[0].outputs
    if len(responses) == 1:
        return first
    rows = [response.outputs for response in responses]
    return {name: np.concatenate([np.atleast_1d(row[name]) for row in rows]) for name in first}
