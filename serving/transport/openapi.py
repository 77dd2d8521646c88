"""The OpenAPI document of an HTTP host, made of its own table: what it says, the router does."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route
from crossfade.serving.transport.http_answer import REASONS
from crossfade.serving.transport.operation import Operation
from crossfade.serving.transport.path_templates import Template, templates

PATH: Final = "/openapi.json"
Json = dict[str, Any]
# What the host itself may answer to any request, and the policy to those that are no probe.
_HOST: Final = (400, 405, 408, 413, 414, 415, 429, 431, 499, 500, 503)
_POLICY: Final = (401, 403)
_ERROR: Final = {"$ref": "#/components/schemas/Error"}
_OPERATION: Final = Operation("openapi", "This document.", answer={"type": "object"})


def published(routes: Sequence[Route], version: str) -> list[Route]:
    """The routes, and one more that describes them all.

    Args:
        routes: all others of the host.
        version: of the server.
    """

    @functools.cache
    def body() -> bytes:
        return orjson.dumps(document(every, version))

    def answer(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        return HttpResponse(body=body(), compressible=True)

    own = Route("GET", PATH.replace(".", r"\."), Access.READ, answer, _OPERATION)
    every = [*routes, own]
    return every


def document(routes: Sequence[Route], version: str) -> Json:
    """Describes every route but those that only refuse.

    Raises:
        ValueError: a pattern cannot be written as paths.
    """
    paths: dict[str, Json] = {}
    for route in routes:
        if route.operation is None:
            continue
        first, *others = templates(route.pattern)
        names = {first.path: route.operation.name}
        for number, form in enumerate(others, 2):
            added = [name for name in form.parts if name not in first.parts]
            suffix = "with_" + "_and_".join(added) if added else str(number)
            names[form.path] = f"{route.operation.name}_{suffix}"
        for form in (first, *others):
            described = _described(route, route.operation, form, names[form.path])
            paths.setdefault(form.path, {})[route.method.lower()] = described
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Crossfade", "version": version},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Error": error},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(route: Route, operation: Operation, form: Template, name: str) -> Json:
    described: Json = {
        "operationId": name,
        "summary": operation.summary,
        "responses": _responses(route, operation, form),
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^{pattern}$"},
        }
        for name, pattern in form.parts.items()
    ]
    if parameters or operation.parameters:
        described["parameters"] = [*parameters, *operation.parameters]
    content = {media: {"schema": schema} for media, schema in operation.media.items()}
    if operation.body is not None:
        content = {"application/json": {"schema": operation.body}, **content}
    if content:
        described["requestBody"] = {"required": not operation.optional_body, "content": content}
    if route.access is not Access.PROBE:
        described["security"] = [{}, {"token": []}]  # tokens are asked for where it is set up so
    return described


def _responses(route: Route, operation: Operation, form: Template) -> Json:
    content = {media: {"schema": schema} for media, schema in operation.answer_media.items()}
    if operation.answer is not None:
        content = {"application/json": {"schema": operation.answer}, **content}
    good: Json = {"description": "OK"}
    if content:
        good["content"] = content
    responses: Json = {"200": good}
    policy = () if route.access is Access.PROBE else _POLICY
    missing = (404,) if form.parts else ()
    for status in sorted({*_HOST, *policy, *missing, *operation.errors, *operation.also}):
        schema: Mapping[str, Any] = _ERROR
        if status in operation.also:
            schema = {"anyOf": [operation.also[status], _ERROR]}
        responses[str(status)] = {
            "description": REASONS[status],
            "content": {"application/json": {"schema": schema}},
        }
    return responses
