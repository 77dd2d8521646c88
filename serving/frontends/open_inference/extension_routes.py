"""The HTTP routes of Triton's extensions: shared memory, trace and log settings, generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from crossfade.runtimes.core.errors import InvalidArgument, Unimplemented
from crossfade.serving.frontends.open_inference import cuda_memory, operations
from crossfade.serving.frontends.open_inference.routes import MODEL
from crossfade.serving.frontends.open_inference.settings import LogSettings, TraceSettings
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route

Parts = Mapping[str, str]
_SYSTEM: Final = "/v2/systemsharedmemory"
_CUDA: Final = "/v2/cudasharedmemory"
_REGION: Final = r"/region/(?P<region>[^/]+)"
_ALL: Final = f"(?:{_REGION})?"


def table(regions: SharedRegions, traces: TraceSettings, logs: LogSettings) -> list[Route]:
    """The routes; whoever may infer may bring the memory for it, settings are administration."""

    def register(request: HttpRequest, parts: Parts) -> HttpResponse:
        regions.check_enabled()
        body = loads(request.body)
        key = body.get("key")
        if not isinstance(key, str):
            raise InvalidArgument("'key' must be a string")
        numbers = [body.get("offset", 0), body.get("byte_size")]
        if not all(type(number) is int for number in numbers):
            raise InvalidArgument("'offset' and 'byte_size' must be integers")
        regions.register(parts["region"], key, *numbers)
        return HttpResponse()

    def unregister(_: HttpRequest, parts: Parts) -> HttpResponse:
        regions.unregister(parts.get("region", ""))
        return HttpResponse()

    def status(_: HttpRequest, parts: Parts) -> HttpResponse:
        found = regions.status(parts.get("region", ""))
        return _json(
            [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.size} for r in found]
        )

    def cuda_status(_: HttpRequest, parts: Parts) -> HttpResponse:
        cuda_memory.status(parts.get("region", ""))
        return _json([])

    def trace(request: HttpRequest, parts: Parts) -> HttpResponse:
        wanted: dict[str, list[str]] = {}
        for name, given in (loads(request.body) if request.body else {}).items():
            # null clears a setting; one value may stand alone.
            values = [] if given is None else given if isinstance(given, list) else [given]
            if not all(isinstance(value, (str, int)) for value in values):
                raise InvalidArgument("a trace setting must be a string or a list of strings")
            wanted[name] = [str(value) for value in values]
        found = traces.update(parts.get("model", ""), wanted)
        return _json({name: v if name == "trace_level" else v[0] for name, v in found.items()})

    def log(request: HttpRequest, _: Parts) -> HttpResponse:
        return _json(logs.update(loads(request.body) if request.body else {}))

    def generate(_: HttpRequest, __: Parts) -> HttpResponse:
        raise Unimplemented("the generate extension is not supported; use infer")

    infer, read, admin = Access.INFER, Access.READ, Access.ADMIN
    return [
        Route("GET", f"{_SYSTEM}{_ALL}/status", read, status, operations.SHARED_STATUS),
        Route("POST", f"{_SYSTEM}{_REGION}/register", infer, register, operations.SHARED_REGISTER),
        Route(
            "POST", f"{_SYSTEM}{_ALL}/unregister", infer, unregister, operations.SHARED_UNREGISTER
        ),
        Route("GET", f"{_CUDA}{_ALL}/status", read, cuda_status, operations.CUDA_STATUS),
        Route(
            "POST",
            f"{_CUDA}{_REGION}/register",
            infer,
            lambda *_: cuda_memory.register(),
            operations.CUDA_REGISTER,
        ),
        Route(
            "POST",
            f"{_CUDA}{_ALL}/unregister",
            infer,
            lambda *_: HttpResponse(),
            operations.CUDA_UNREGISTER,
        ),
        *(
            Route(method, path, admin, handle, operations.settings(kind, method))
            for method in ("GET", "POST")
            for kind, path, handle in (
                ("trace", "/v2/trace/setting", trace),
                ("model_trace", f"{MODEL}/trace/setting", trace),
                ("log", "/v2/logging", log),
            )
        ),
        Route("POST", f"{MODEL}/generate", infer, generate, operations.GENERATE),
        Route("POST", f"{MODEL}/generate_stream", infer, generate, operations.GENERATE_STREAM),
    ]


def _json(value: Any) -> HttpResponse:
    return HttpResponse(body=orjson.dumps(value))
