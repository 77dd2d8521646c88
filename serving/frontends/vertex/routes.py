"""The two routes of a container on Vertex AI: health and predict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
    escape,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.config.vertex_config import VertexConfig
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.vertex import operations, redirect
from crossfade.serving.tensors import json_rows
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.transport.calls import (
    Access,
    HttpRequest,
    HttpResponse,
    PayloadLimit,
    Route,
)

Parts = Mapping[str, str]
Infer = Callable[[HttpRequest], HttpResponse]
_ADVICE: Final = (
    "send fewer instances in one request, or smaller ones (pictures compressed, in base64), or use"
    " an endpoint that takes more and raise --vertex-ai-max-payload-bytes"
)


def table(plane: DataPlane, config: VertexConfig, infer: Infer) -> list[Route]:
    """The routes over ``plane``.

    Args:
        plane: the door.
        config: the paths, the default model and the limit.
        infer: answers requests of the Open Inference Protocol for ``/v2/models/M/infer``.
    """

    def default_model() -> str:
        if config.default_model:
            return config.default_model
        names = {served.metadata.name for served in plane.manager.served()}
        if not names:
            raise Unavailable("no model is ready", retry_after_s=1.0)
        if len(names) == 1:
            return names.pop()
        raise FailedPrecondition(
            "several models are served, and --vertex-ai-default-model names none of them"
        )

    def health(_: HttpRequest, __: Parts) -> HttpResponse:
        try:
            is_ready = plane.ready and plane.model_ready(ModelRef(default_model()))
        except CrossfadeError:
            is_ready = False
        return HttpResponse(200 if is_ready else 503, b"{}")

    def predict(request: HttpRequest, _: Parts) -> HttpResponse:
        name = default_model()
        path = f"/v2/models/{name}/infer"
        if redirect.is_binary(request) or redirect.JSON_LENGTH in request.headers:
            return infer(redirect.as_v2(request, path))
        document = loads(request.body, nonfinite=True)
        if "inputs" in document and "instances" not in document:  # as Triton's clients do
            return infer(redirect.as_v2(request, path))
        return _predict_rows(plane, name, request, document)

    limit = PayloadLimit(config.max_payload_bytes, _ADVICE)
    return [
        Route("GET", re.escape(config.health_route), Access.PROBE, health, operations.HEALTH),
        Route(
            *("POST", re.escape(config.predict_route), Access.INFER, predict),
            operations.PREDICT,
            limit=limit,
            forward=redirect.target,
        ),
    ]


def _predict_rows(
    plane: DataPlane, name: str, request: HttpRequest, document: Mapping[str, Any]
) -> HttpResponse:
    ref = ModelRef(name)
    served = plane.facts(ref)
    signature_name = _signature_name(document.get("parameters")) or served.default_signature
    signature = served.metadata.signatures.get(signature_name)
    if signature is None:
        raise InvalidArgument(f"the model has no signature '{escape(signature_name)}'")
    asked = json_rows.ask(document, signature)
    cancelled = request.cancelled
    queries = [
        Query(ref, part, (), signature_name, cancelled=cancelled, caller=request)
        for part in asked.parts
    ]
    responses = []
    for result in plane.infer(queries, "vertex"):
        if isinstance(result, CrossfadeError):
            raise result
        responses.append(result)
    return HttpResponse(body=asked.encode(responses), compressible=True)


def _signature_name(parameters: Any) -> str | None:
    """The one parameter that counts; others may be meant for another container of the model."""
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise InvalidArgument("'parameters' must be an object")
    name = parameters.get("signature_name")
    if name is not None and not isinstance(name, str):
        raise InvalidArgument("'signature_name' must be a string")
    return name
