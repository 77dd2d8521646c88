"""The redirect header and the binary media type of requests on Vertex AI."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.frontends.vertex import redirect
from crossfade.serving.transport.calls import HttpRequest
from crossfade.serving.transport.cancellation import CancelToken


def request(**headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest("POST", "/predict", named, b"body", "10.0.0.1", CancelToken())


def to(path: str, **headers: str) -> HttpRequest | None:
    return redirect.target(request(x_vertex_ai_triton_redirect=path, **headers))


@pytest.mark.parametrize("path", ["v2", "v2/", "v2/models/a/infer", "metrics", "v2/health/ready"])
def test_a_path_of_the_protocol(path: str) -> None:
    for written in (path, f"/{path}"):
        asked = to(written, authorization="Bearer a")
        assert asked is not None
        assert asked.path == f"/{path}"
        assert (asked.body, asked.peer) == (b"body", "10.0.0.1")
        assert asked.headers["authorization"] == "Bearer a"


@pytest.mark.parametrize(
    "path",
    ["", "v1/models/a", "openapi.json", "//v2", "v2?x", "v2/a#b", "v22", "metrics/", "http://v2/"],
)
def test_any_other_path(path: str) -> None:
    with pytest.raises(InvalidArgument, match="X-Vertex-Ai-Triton-Redirect"):
        to(path)


def test_without_the_header() -> None:
    assert redirect.target(request(content_type="application/json")) is None


@given(st.integers(0, 10**19 - 1), st.sampled_from(["", " ", "  "]))
def test_the_length_of_the_json(length: int, space: str) -> None:
    media = f"{redirect.BINARY_MEDIA};{space}json-header-size={length}"
    asked = to("v2/models/a/infer", content_type=media)
    assert asked is not None
    assert asked.headers["inference-header-content-length"] == str(length)


@given(st.text(st.characters(max_codepoint=255)))
def test_no_length(parameter: str) -> None:
    media = f"{redirect.BINARY_MEDIA}{parameter}"
    if re.fullmatch(r" *; *json-header-size=[0-9]{1,19}", parameter):
        return
    with pytest.raises(InvalidArgument, match="json-header-size=N"):
        to("v2/models/a/infer", content_type=media)
