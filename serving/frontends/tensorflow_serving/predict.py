"""Answers ``Predict`` requests, those that come together at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import InferResponse
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.tensorflow_serving import predict_codec, refusals
from crossfade.serving.frontends.tensorflow_serving.plans import Known
from crossfade.serving.frontends.tensorflow_serving.predict_codec import PredictMessage
from crossfade.serving.metrics.tensorflow import TensorflowMetrics
from crossfade.serving.tensors import fit
from crossfade.serving.transport.calls import Call

_Message = PredictMessage | Known
_Handler = Callable[[Sequence[tuple[_Message, Call]]], Sequence[bytes | CrossfadeError]]


def handler(plane: DataPlane, metrics: TensorflowMetrics) -> _Handler:
    """What answers requests over ``plane``, in order, and counts them."""

    def handle(asked: Sequence[tuple[_Message, Call]]) -> Sequence[bytes | CrossfadeError]:
        began_ns = time.perf_counter_ns()
        answers: dict[int, bytes | CrossfadeError] = {}
        queries: dict[int, Query] = {}
        for index, (message, call) in enumerate(asked):
            try:
                queries[index] = query = _query(message, call)
                query.caller = call
            except CrossfadeError as error:
                answers[index] = error
        responses: list[InferResponse] = []
        results = plane.infer(list(queries.values()), "tensorflow_serving") if queries else ()
        for (index, query), result in zip(queries.items(), results, strict=True):
            if isinstance(result, InferResponse):
                answers[index] = _answer(query, result)
                responses.append(result)
            else:
                answers[index] = refusals.explain(result, plane, query)
        metrics.record_runs("Predict", responses)
        names = [response.model.name for response in responses]
        metrics.record_requests(names, "Predict", "GRPC", time.perf_counter_ns() - began_ns)
        return [answers[index] for index in range(len(asked))]

    return handle


def _query(message: _Message, call: Call) -> Query:
    if isinstance(message, Known):
        return message.query(call)
    return predict_codec.to_query(message, call.deadline_s, call.cancelled)


def _answer(query: Query, response: InferResponse) -> bytes:
    if query.lacked_one:
        response = fit.narrow(response)
    return predict_codec.encode(response, query.signature or response.model.default_signature)
