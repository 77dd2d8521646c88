"""TensorFlow Serving's REST API, and KServe's first protocol, which has the same paths.

Where both have a path, the answer has the fields of both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
    escape,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.tensorflow_serving import (
    describe,
    examples,
    inference,
    json_examples,
    model_spec,
    operations,
    refusals,
)
from crossfade.serving.frontends.tensorflow_serving.results import CLASSIFY, REGRESS, Method
from crossfade.serving.metrics.tensorflow import TensorflowMetrics
from crossfade.serving.tensors import json_rows
from crossfade.serving.tensors.json_values import dumps
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route
from crossfade.serving.wire import POOL
from crossfade.serving.wire import tf_serving as wire

_WHICH = r"(?:/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?"
_MODEL = rf"/v1/models/(?P<model>[^/:]+){_WHICH}"
Parts = Mapping[str, str]
_Answer = Callable[[HttpRequest, Parts], HttpResponse]


def table(plane: DataPlane, metrics: TensorflowMetrics) -> list[Route]:
    """The routes over ``plane``; what no other one of them matches is a malformed request.

    Args:
        plane: answers.
        metrics: counts what is answered.
    """

    def predict(request: HttpRequest, parts: Parts) -> HttpResponse:
        document = loads(request.body, nonfinite=True)
        ref = _ref(parts)
        served = model_spec.facts(plane, ref)
        name, signature = refusals.signature_of(served, _signature_name(document))
        asked = json_rows.ask(document, signature)
        queries = [
            Query(
                *(ref, part, (), name),
                deadline_s=request.deadline_s,
                cancelled=request.cancelled,
                caller=request,
            )
            for part in asked.parts
        ]
        responses = []
        results = plane.infer(queries, "tensorflow_serving")
        for query, result in zip(queries, results, strict=True):
            if isinstance(result, CrossfadeError):
                raise refusals.explain(result, plane, query)
            metrics.record_runs("Predict", [result])
            responses.append(result)
        return HttpResponse(body=asked.encode(responses), compressible=True)

    def with_examples(method: Method) -> _Answer:
        def answer(request: HttpRequest, parts: Parts) -> HttpResponse:
            document = loads(request.body, nonfinite=True)
            task = inference.task(
                plane,
                method,
                _ref(parts),
                signature_name=_signature_name(document),
                serialized=examples.serialized(json_examples.to_input(document)),
                deadline_s=request.deadline_s,
                cancelled=request.cancelled,
                caller=request,
            )
            (result,) = inference.run(plane, (task,))
            if isinstance(result, CrossfadeError):
                raise result
            results = json_examples.results(task.result(result))
            metrics.record_runs(method.api, [result])
            metrics.record_examples(result.model.name, task.rows)
            return HttpResponse(body=dumps({"results": results}, True), compressible=True)

        return answer

    def metadata(_: HttpRequest, parts: Parts) -> HttpResponse:
        found = describe.metadata(plane, _ref(parts))
        signatures = wire.SignatureDefMap()
        found.metadata[describe.SIGNATURE_DEF].Unpack(signatures)
        shown = {describe.SIGNATURE_DEF: _plain(signatures)}
        return _json({"model_spec": _plain(found.model_spec), "metadata": shown})

    def status(_: HttpRequest, parts: Parts) -> HttpResponse:
        ref = _ref(parts)
        found = _plain(describe.status(plane, ref))
        return _json({**found, "name": ref.name, "ready": plane.model_ready(ref)})

    def models(_: HttpRequest, __: Parts) -> HttpResponse:
        names = {served.metadata.name for served in plane.manager.served()}
        return _json({"models": sorted(names)})

    def timed(api: str, answer: _Answer) -> _Answer:
        def measure(request: HttpRequest, parts: Parts) -> HttpResponse:
            began_ns = time.perf_counter_ns()
            response = answer(request, parts)
            duration_ns = time.perf_counter_ns() - began_ns
            metrics.record_requests([parts["model"]], api, "REST", duration_ns)
            return response

        return _in_its_codes(measure)

    classify = timed(CLASSIFY.api, with_examples(CLASSIFY))
    regress = timed(REGRESS.api, with_examples(REGRESS))
    routes = [
        Route(
            "POST", f"{_MODEL}:predict", Access.INFER, timed("Predict", predict), operations.PREDICT
        ),
        Route("POST", f"{_MODEL}:classify", Access.INFER, classify, operations.CLASSIFY),
        Route("POST", f"{_MODEL}:regress", Access.INFER, regress, operations.REGRESS),
        Route("GET", f"{_MODEL}/metadata", Access.READ, metadata, operations.METADATA),
        Route("GET", _MODEL, Access.READ, status, operations.STATUS),
        Route("GET", "/v1/models", Access.READ, models, operations.MODELS),
        Route("GET", "/", Access.PROBE, lambda _, __: _json({"status": "alive"}), operations.ALIVE),
    ]
    rest = r"/v1/models(?:/.*)?"
    routes += [Route(method, rest, Access.READ, _malformed) for method in ("GET", "POST")]
    return routes


def _in_its_codes(answer: _Answer) -> _Answer:
    def translated(request: HttpRequest, parts: Parts) -> HttpResponse:
        try:
            return answer(request, parts)
        except FailedPrecondition as error:  # 400 here, 409 in other protocols
            raise InvalidArgument(error.message) from None

    return translated


def _malformed(request: HttpRequest, _: Parts) -> HttpResponse:
    path = re.sub(r"[^\x21-\x7e]", lambda found: escape(found[0]), request.path[:128])
    raise InvalidArgument(f"Malformed request: {request.method} {path}")


def _ref(parts: Parts) -> ModelRef:
    # As in ``model_spec.to_ref``, 0 is the latest.
    return ModelRef(parts["model"], int(parts.get("version") or 0) or None, parts.get("label"))


def _signature_name(document: Mapping[str, Any]) -> str | None:
    name = document.get("signature_name")
    if name is not None and not isinstance(name, str):
        raise InvalidArgument("'signature_name' must be a string")
    return name or None


def _plain(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=POOL,
    )


def _json(document: dict[str, Any]) -> HttpResponse:
    return HttpResponse(body=dumps(document, False))
