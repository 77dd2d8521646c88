"""The HTTP routes of the Open Inference Protocol v2 and of Triton's repository extension."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    InvalidArgument,
    escape,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.open_inference import binary_body, operations, raw_request
from crossfade.serving.frontends.open_inference.describe import Describe
from crossfade.serving.frontends.open_inference.infer_codec import version_of
from crossfade.serving.frontends.open_inference.json_codec import Form, encode, to_query
from crossfade.serving.frontends.open_inference.rpcs import override
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route

MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[0-9]+))?"
_OF_REPOSITORY = "/v2/repository/models/(?P<model>[^/]+)"
Parts = Mapping[str, str]


def table(plane: DataPlane, describe: Describe, regions: SharedRegions) -> list[Route]:
    """The routes of the contract over ``plane``."""

    def infer(request: HttpRequest, parts: Parts) -> HttpResponse:
        ref = ModelRef(parts["model"], version_of(parts.get("version") or ""))
        if request.headers.get(binary_body.HEADER.lower()) == "0":
            tensor = raw_request.only_input(describe.signature(ref), request.body)
            query = Query(
                *(ref, [tensor]),
                id="",
                deadline_s=request.deadline_s,
                cancelled=request.cancelled,
                caller=request,
            )
            form = Form(binary=True)
        else:
            query, form = to_query(request, ref, regions)
        result = plane.infer((query,), "open_inference")[0]
        if isinstance(result, CrossfadeError):
            raise result
        return encode(result, query.id or "", form)

    def server_ready(request: HttpRequest, parts: Parts) -> HttpResponse:
        return _said(plane.ready, {"ready": plane.ready})

    def model_ready(request: HttpRequest, parts: Parts) -> HttpResponse:
        ready = describe.ready(parts["model"], parts.get("version") or "")
        return _said(ready, {"name": escape(parts["model"]), "ready": ready})

    def load(request: HttpRequest, parts: Parts) -> HttpResponse:
        body = loads(request.body) if request.body else {}
        parameters = body.get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidArgument("'parameters' must be an object")
        plane.manager.load(parts["model"], override(parts["model"], parameters))
        return HttpResponse()

    def unload(request: HttpRequest, parts: Parts) -> HttpResponse:
        given: Any = None
        with contextlib.suppress(InvalidArgument):  # Triton takes anything for a body here
            given = loads(request.body or b"{}").get("parameters")
        members = isinstance(given, dict) and given.get("unload_dependents") is True
        plane.manager.unload(parts["model"], members)
        return HttpResponse()

    def index(request: HttpRequest, parts: Parts) -> HttpResponse:
        body = loads(request.body) if request.body else {}
        ready_only = body.get("ready", False)
        if not isinstance(ready_only, bool):
            raise InvalidArgument("'ready' must be true or false")
        found = describe.index(parts.get("repository") or "", ready_only)
        return _json([_plain(line) for line in found.models])

    def of_model(answer: Callable[[str, str], Any]) -> Callable[[HttpRequest, Parts], HttpResponse]:
        return lambda _, parts: _json(
            _plain(answer(parts.get("model") or "", parts.get("version") or ""))
        )

    def config(name: str, version: str) -> Any:
        return describe.config(name, version).config

    probe, read = Access.PROBE, Access.READ
    return [
        Route("POST", f"{MODEL}/infer", Access.INFER, infer, operations.INFER),
        Route(
            "GET", "/v2/health/live", probe, lambda _, __: _json({"live": True}), operations.LIVE
        ),
        Route("GET", "/v2/health/ready", probe, server_ready, operations.READY),
        Route(
            "GET", "/v2", read, lambda _, __: _json(_plain(describe.server())), operations.SERVER
        ),
        Route(
            "GET",
            "/v2/models/stats",
            read,
            of_model(describe.statistics),
            operations.ALL_STATISTICS,
        ),
        Route("GET", f"{MODEL}/ready", read, model_ready, operations.MODEL_READY),
        Route("GET", f"{MODEL}/config", read, of_model(config), operations.CONFIG),
        Route("GET", f"{MODEL}/stats", read, of_model(describe.statistics), operations.STATISTICS),
        Route("GET", MODEL, read, of_model(describe.metadata), operations.METADATA),
        Route(
            "POST",
            "/v2/repository(?:/(?P<repository>[^/]+))?/index",
            read,
            index,
            operations.INDEX,
        ),
        Route("POST", f"{_OF_REPOSITORY}/load", Access.ADMIN, load, operations.LOAD),
        Route("POST", f"{_OF_REPOSITORY}/unload", Access.ADMIN, unload, operations.UNLOAD),
    ]


def _said(good: bool, value: Any) -> HttpResponse:
    """The status for Triton's clients, and the body for KServe's."""
    return HttpResponse(200 if good else 400, orjson.dumps(value))


def _json(value: Any) -> HttpResponse:
    return HttpResponse(body=orjson.dumps(value))


def _plain(message: Any) -> dict[str, Any]:
    """A message as JSON values: every field by its own name, 64-bit numbers as numbers."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            is_message = field.message_type.fields_by_name["value"].message_type is not None
            plain[field.name] = {k: _plain(v) if is_message else v for k, v in entries.items()}
        elif field.is_repeated:
            values = getattr(message, field.name)
            plain[field.name] = [_value(field, value) for value in values]
        elif not field.has_presence or message.HasField(field.name):
            plain[field.name] = _value(field, getattr(message, field.name))
    return plain


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
