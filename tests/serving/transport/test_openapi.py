"""The published document, compared with the router of the server that publishes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from crossfade.serving.transport import openapi
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Route
from crossfade.serving.transport.cancellation import CancelToken
from crossfade.serving.transport.http_router import HttpRouter
from crossfade.serving.transport.operation import Operation
from crossfade.serving.transport.path_templates import templates
from tests.serving.transport.test_policy import TABLES

# Routes that only refuse, and so are no part of what the server offers.
UNPUBLISHED = {("GET", "/v1/models(?:/.*)?"), ("POST", "/v1/models(?:/.*)?")}
ROUTES = TABLES.hosts[0]
ROUTER = HttpRouter(ROUTES)
VALUES = {"version": "1"}


def served_document() -> dict[str, Any]:
    route, groups = ROUTER.find("GET", "/openapi.json")
    assert route.access is Access.READ
    request = HttpRequest("GET", "/openapi.json", {}, b"", "127.0.0.1", CancelToken())
    found: dict[str, Any] = orjson.loads(route.handle(request, groups).body)
    return found


DOCUMENT = served_document()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def named(operation: Mapping[str, Any]) -> str:
    return str(operation["operationId"])


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=str)
def test_what_is_published_is_there(method: str, path: str, operation: dict[str, Any]) -> None:
    parts = re.findall(r"\{(\w+)\}", path)
    route, groups = ROUTER.find(method, re.sub(r"\{(\w+)\}", lambda m: VALUES.get(m[1], "a"), path))
    assert groups == {name: VALUES.get(name, "a") for name in parts}
    assert route.operation is not None
    assert named(operation).startswith(route.operation.name)
    in_path = [p for p in operation.get("parameters", ()) if p["in"] == "path"]
    assert [p["name"] for p in in_path] == parts
    assert all(re.fullmatch(p["schema"]["pattern"], VALUES.get(p["name"], "a")) for p in in_path)
    assert ("security" in operation) == (route.access is not Access.PROBE)
    assert ("requestBody" in operation) <= (method == "POST")


def test_what_is_there_is_published() -> None:
    published = {(method, path) for method, path, _ in OPERATIONS}
    there = {
        (route.method, form.path)
        for route in ROUTES
        if route.operation is not None
        for form in templates(route.pattern)
    }
    assert published == there
    unpublished = {(route.method, route.pattern) for route in ROUTES if route.operation is None}
    assert unpublished == UNPUBLISHED


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [named(operation) for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_statuses() -> None:
    def handle(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        return HttpResponse()

    nothing = Operation("nothing", "", also={503: {"type": "object"}}, errors=(501,))
    routes = [
        Route("GET", "/p", Access.PROBE, handle, nothing),
        Route("POST", "/m/(?P<m>[^/]+)", Access.INFER, handle, Operation("m", "", body={})),
    ]
    probe = openapi.document(routes, "1")["paths"]["/p"]["get"]
    assert {"200", "400", "501", "503"} <= probe["responses"].keys()
    assert not {"401", "403", "404"} & probe["responses"].keys()
    assert "content" not in probe["responses"]["200"]
    schema = probe["responses"]["503"]["content"]["application/json"]["schema"]
    assert schema["anyOf"][0] == {"type": "object"}
    posted = openapi.document(routes, "1")["paths"]["/m/{m}"]["post"]
    assert {"401", "403", "404"} <= posted["responses"].keys()
    assert posted["requestBody"]["required"]
