"""The RPC table of ``inference.GRPCInferenceService``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, Unimplemented, escape
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.open_inference.describe import Describe
from crossfade.serving.frontends.open_inference.infer_answer import encode
from crossfade.serving.frontends.open_inference.infer_codec import (
    InferMessage,
    model_of,
    plain,
    to_query,
)
from crossfade.serving.frontends.open_inference.plans import Known, Plans
from crossfade.serving.frontends.open_inference.wanted import Wanted
from crossfade.serving.repository import triton_config
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.transport.calls import Access, Buffer, Call, Rpc, always, each
from crossfade.serving.wire import open_inference as wire
from crossfade.serving.wire.fields import parse_small

SERVICE: Final = "inference.GRPCInferenceService"
_Asked = tuple[InferMessage | Known, Call]


def table(plane: DataPlane, describe: Describe, regions: SharedRegions) -> list[Rpc[Any, Any]]:
    """The RPCs of the contract over ``plane``."""

    def infer(asked: Sequence[_Asked]) -> Sequence[bytes | CrossfadeError]:
        answers: list[Any] = [None] * len(asked)
        queries: list[Query] = []
        places: list[tuple[int, Any]] = []
        for index, (message, call) in enumerate(asked):
            special: Sequence[Wanted] = ()
            try:
                if isinstance(message, Known):
                    query = message.query(call)
                else:
                    query, special = to_query(message, call, regions)
            except CrossfadeError as error:
                answers[index] = error
            else:
                query.caller = call
                queries.append(query)
                places.append((index, special))
        if queries:
            results = plane.infer(queries, "open_inference")
            for (index, special), query, result in zip(places, queries, results, strict=True):
                answers[index] = _answer(result, query, special)
        return answers

    def is_quick(message: Buffer) -> bool:
        name = model_of(message)
        return name is not None and plane.is_quick(name)

    def load(request: Any, _: Call) -> Any:
        if request.repository_name:
            raise Unimplemented("'repository_name' specification is not supported")
        given = plain(request.parameters)
        plane.manager.load(request.model_name, override(request.model_name, given))
        return wire.RepositoryModelLoadResponse()

    def unload(request: Any, _: Call) -> Any:
        if request.repository_name:
            raise Unimplemented("'repository_name' specification is not supported")
        members = request.parameters["unload_dependents"].bool_param
        plane.manager.unload(request.model_name, members)
        return wire.RepositoryModelUnloadResponse()

    def read(name: str, request: Any, answer: Any) -> Rpc[Any, Any]:
        return unary(name, Access.READ, request, lambda r, _: answer(r))

    def look(name: str, request: Any, answer: Any) -> Rpc[Any, Any]:
        return dataclasses.replace(read(name, request, answer), is_quick=always)

    def probe(name: str, request: Any, answer: Any) -> Rpc[Any, Any]:
        return dataclasses.replace(look(name, request, answer), access=Access.PROBE)

    return [
        Rpc(f"/{SERVICE}/ModelInfer", Access.INFER, Plans().decode, infer, bytes, is_quick),
        probe("ServerLive", wire.ServerLiveRequest, lambda _: wire.ServerLiveResponse(live=True)),
        probe(
            "ServerReady",
            wire.ServerReadyRequest,
            lambda _: wire.ServerReadyResponse(ready=plane.ready),
        ),
        look(
            "ModelReady",
            wire.ModelReadyRequest,
            lambda r: wire.ModelReadyResponse(ready=describe.ready(r.name, r.version)),
        ),
        look("ServerMetadata", wire.ServerMetadataRequest, lambda _: describe.server()),
        read(
            "ModelMetadata",
            wire.ModelMetadataRequest,
            lambda r: describe.metadata(r.name, r.version),
        ),
        read("ModelConfig", wire.ModelConfigRequest, lambda r: describe.config(r.name, r.version)),
        read(
            "ModelStatistics",
            wire.ModelStatisticsRequest,
            lambda r: describe.statistics(r.name, r.version),
        ),
        read(
            "RepositoryIndex",
            wire.RepositoryIndexRequest,
            lambda r: describe.index(r.repository_name, r.ready),
        ),
        unary("RepositoryModelLoad", Access.ADMIN, wire.RepositoryModelLoadRequest, load),
        unary("RepositoryModelUnload", Access.ADMIN, wire.RepositoryModelUnloadRequest, unload),
    ]


def override(model: str, parameters: Mapping[str, Any]) -> ModelConfig | None:
    """The configuration that a load request brings, if any.

    Raises:
        InvalidArgument: it cannot be used; or the request brings files, which are never written,
            or something unknown.
    """
    for name in parameters:
        if name.startswith("file:"):
            raise InvalidArgument("files are not taken from a load request")
        if name != "config":
            raise InvalidArgument(f"load parameter '{escape(name)}' is unknown")
    text = parameters.get("config")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidArgument("load parameter 'config' must be a string")
    return triton_config.from_json(loads(text.encode()), model)


def unary(name: str, access: Access, request: Any, answer: Any) -> Rpc[Any, Any]:
    """The RPC ``name`` of the service, whose ``answer`` takes a message and its call."""

    def decode_request(message: Buffer) -> Any:
        return parse_small(request, message)

    def encode_response(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    return Rpc(f"/{SERVICE}/{name}", access, decode_request, each(answer), encode_response)


def _answer(result: Any, query: Query, special: Sequence[Wanted]) -> bytes | CrossfadeError:
    if isinstance(result, CrossfadeError):
        return result
    try:
        return encode(result, query.id or "", special)
    except CrossfadeError as error:
        return error
