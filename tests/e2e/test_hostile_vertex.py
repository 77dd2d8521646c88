"""The list of hostile inputs at the doors that take rows of JSON: Vertex AI's and KServe's.

By the list's row numbers, as in ``test_hostile_http``; the doors lead to the same model.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.hostile import Target, assert_clean, bomb, document, target

VERTEX, KSERVE = "/predict", "/v1/models/scores:predict"
REDIRECT = "X-Vertex-Ai-Triton-Redirect"
MAX_VERTEX_BYTES = 3 * 512 * 1024
MIB = 2**20
Reply = Any


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    options = ("--vertex-ai", "--vertex-ai-default-model", "scores", "--host", "127.0.0.1")
    with target(tmp_path_factory.mktemp("hostile"), *options) as started:
        yield started


def case(row: int, name: str, *values: Any) -> Any:
    return pytest.param(*values, id=f"row{row:02}-{name}")


def refused(reply: Reply, status: int, says: str = "", *sent: str) -> None:
    assert (reply.status, reply.body) == (status, reply.body)
    assert any(part in reply.error for part in says.split("|")), reply.error
    assert_clean(reply.error, ("TensorFlow", *sent))


def rows(text: str) -> bytes:
    return f'{{"instances": {text}}}'.encode()


WRONG = [
    case(5, "no-rows", rows("[]"), "not empty"),
    case(7, "one-less", rows("[[1, 2, 3]]"), "unexpected shape"),
    case(7, "one-more", rows("[[1, 2, 3, 4, 5]]"), "unexpected shape"),
    case(7, "too-deep", rows("[[[1, 2, 3, 4]]]"), "unexpected shape"),
    case(11, "unknown", rows('[{"y": [1, 2, 3, 4]}]'), "Sent extra: {y}"),
    case(11, "none", rows("[{}]"), "Missing but required: {x}"),
    case(11, "other-keys", rows('[{"x": [1, 2, 3, 4]}, {"y": 1}]'), "the same keys"),
    case(11, "control-in-name", rows('[{"\\u001b[2J\\u202e": 1}]'), r"{\x1b[2J\u202e}"),
    case(11, "nul-in-name", rows('[{"x\\u0000": 1}]'), r"{x\x00}"),
    case(27, "array", b"[]", "must be a JSON object"),
    case(27, "null", b"null", "must be a JSON object"),
    case(27, "empty-object", b"{}", "either 'instances' or 'inputs'"),
    case(27, "empty", b"", "not valid JSON"),
    case(27, "truncated", b'{"instances": [[1, 2', "not valid JSON"),
    case(27, "rows-null", rows("null"), "not empty"),
    case(27, "rows-object", rows('{"x": 1}'), "not empty"),
    case(27, "rows-text", rows('"abcd"'), "not empty"),
    case(27, "both", b'{"instances": [[1, 2, 3, 4]], "inputs": []}', "not both"),
    case(27, "noise", bytes(range(256)), "not valid JSON"),
    case(27, "many-objects", rows("[" + "{}," * 10**5 + "{}]"), "objects and keys"),
    case(28, "1e999", rows("[[1e999, 1, 1, 1]]"), "FP32 cannot hold|not valid JSON"),
    case(28, "1e39", rows("[[1e39, 1, 1, 1]]"), "FP32 cannot hold"),
    case(28, "10^400", rows(f"[[1{'0' * 400}, 1, 1, 1]]"), "FP32|not valid JSON"),
    case(28, "text", rows('[["1", "2", "3", "4"]]'), "not FP32"),
    case(28, "bool", rows("[[true, 1, 1, 1]]"), "not FP32"),
    case(28, "null-among", rows("[[null, 1, 1, 1]]"), "not FP32"),
    case(28, "object", rows('[[{"a": 1}, 1, 1, 1]]'), "not FP32"),
    case(28, "b64-of-float", rows('[{"b64": "AAAA"}]'), "not FP32"),
    case(28, "ragged", rows("[[1, 2, 3, 4], [1, 2]]"), "different lengths"),
    case(29, "100k-deep", b"[" * 100_000, "allowed limit (100)"),
    case(29, "100k-deep-rows", rows("[" * 100_000 + "1" + "]" * 100_000), "allowed limit (100)"),
    case(29, "101-objects", b'{"a":' * 101 + b"1" + b"}" * 101, "allowed limit (100)"),
    case(29, "duplicate-key", b'{"instances": [[1]], "instances": [[2]]}', "a key stands twice"),
    case(29, "duplicate-in-row", rows('[{"x": [1], "x": [2]}]'), "a key stands twice"),
    case(
        29, "duplicate-escaped", b'{"instances": [], "\\u0069nstances": []}', "a key stands twice"
    ),
]


@pytest.mark.parametrize("door", [VERTEX, KSERVE])
@pytest.mark.parametrize(("body", "says"), WRONG)
def test_wrong_rows(attacked: Target, door: str, body: bytes, says: str) -> None:
    with attacked.survives():
        began_s = time.monotonic()
        refused(attacked.post(door, body), 400, says)
        assert time.monotonic() - began_s < 2


@pytest.mark.parametrize("door", [VERTEX, KSERVE])
def test_row28_nan_is_a_float_and_rows_are_right(attacked: Target, door: str) -> None:
    reply = attacked.post(door, rows("[[1, 2.5, -3, NaN]]"))
    assert (reply.status, reply.body) == (200, b'{"predictions": [[1.0, 2.5, -3.0, NaN]]}')


@pytest.mark.parametrize("media", ["text/plain", "image/png", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("door", [VERTEX, KSERVE])
def test_the_media_type_changes_nothing(attacked: Target, door: str, media: str) -> None:
    """curl sends forms: what is JSON is read as such, whatever it calls itself."""
    headers = {"Content-Type": media}
    with attacked.survives():
        assert attacked.post(door, rows("[[1, 2, 3, 4]]"), headers).status == 200
        refused(attacked.post(door, b"a=b", headers), 400, "not valid JSON")


@pytest.mark.parametrize(
    "media",
    [
        "application/vnd.vertex-ai-triton.binary+json",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=-1",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=0x10",
        f"application/vnd.vertex-ai-triton.binary+json;json-header-size={2**64}",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=99999",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=5",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=5;json-header-size=6",
        "application/vnd.vertex-ai-triton.binary+json;json-header-size=\xb2",
    ],
)
def test_row30_the_length_in_the_media_type(attacked: Target, media: str) -> None:
    body = json.dumps(document()).encode()
    with attacked.survives():
        for headers in ({}, {REDIRECT: "v2/models/simple/infer"}):
            reply = attacked.post(VERTEX, body, {"Content-Type": media, **headers})
            refused(reply, 400, "", "application/vnd.vertex-ai-triton.binary+json")


@pytest.mark.parametrize(
    ("to", "status"),
    [
        case(13, "unknown-model", "v2/models/nobody/infer", 404),
        case(14, "parents", "v2/models/../../etc/passwd", 404),
        case(14, "encoded-parents", "v2/models/..%2f..%2fetc/infer", 404),
        case(14, "rtl", "v2/models/\xe2\x80\xaesimple/infer", 404),
        case(14, "dots", "v2/repository/models/../load", 400),
        case(16, "version", "v2/models/simple/versions/-5/infer", 404),
        case(16, "huge-version", f"v2/models/simple/versions/{2**70}/infer", 400),
        case(36, "elsewhere", "v1/models/simple", 400),
        case(36, "document", "openapi.json", 400),
        case(36, "host", "http://127.0.0.1:1/v2", 400),
        case(36, "host-alone", "//127.0.0.1/v2", 400),
        case(36, "query", "v2/models/simple?x=y", 400),
        case(36, "empty", "", 400),
        case(36, "long", "v2/models/" + "a" * 5000, 404),
        case(36, "itself", "predict", 400),
        case(36, "tab", "v2/models/a\tb", 400),
    ],
)
def test_redirects(attacked: Target, to: str, status: int) -> None:
    with attacked.survives():
        body = json.dumps(document()).encode()
        reply = attacked.post(VERTEX, body, {REDIRECT: to})
        refused(reply, status, "", REDIRECT, "v2/", "'v2/'")


def test_row25_administration_by_redirect(attacked: Target) -> None:
    """From this machine it is allowed; what it may do is what the route itself may."""
    with attacked.survives():
        to = {REDIRECT: "v2/repository/models/nobody/load"}
        assert attacked.post(VERTEX, b"", to).status in (404, 500)
        body = json.dumps({"parameters": {"file:1/../../x": "AAAA", "config": "{}"}}).encode()
        to = {REDIRECT: "v2/repository/models/simple/load"}
        assert attacked.post(VERTEX, body, to).status in (400, 501)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("door", [VERTEX, KSERVE])
def test_row32_bomb(attacked: Target, door: str, coding: str) -> None:
    body = bomb(coding, 2**30, b" ")
    with attacked.survives():
        refused(attacked.post(door, body, {"Content-Encoding": coding}), 413, "larger than")
        refused(attacked.post(door, b"{}", {"Content-Encoding": "br"}), 415, "Content-Encoding")


@pytest.mark.parametrize(
    "headers", [{}, {REDIRECT: "v2/models/simple/infer"}, {REDIRECT: "v2/repository/index"}]
)
def test_row33_too_large_for_vertex(attacked: Target, headers: dict[str, str]) -> None:
    with attacked.survives():
        body = rows("[" + " " * MAX_VERTEX_BYTES + "]")
        refused(attacked.post(VERTEX, body, headers), 413, "send fewer instances")


def test_row33_a_chunk_that_is_too_large_for_vertex(attacked: Target) -> None:
    head = f"POST {VERTEX} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with attacked.survives():
        refused(attacked.send(head + b"%x\r\n" % (MAX_VERTEX_BYTES + 1)), 413, "1572864")


def test_a_small_request_of_many_rows(attacked: Target) -> None:
    """Packed, what Vertex AI lets through may be up to the server's own limit once unpacked."""
    body = gzip.compress(rows("[" + "[1, 2, 3, 4]," * 500_000 + "[1]]"))
    assert len(body) < MAX_VERTEX_BYTES
    with attacked.survives(peak_mib=512):
        reply = attacked.post(VERTEX, body, {"Content-Encoding": "gzip"})
        refused(reply, 400, "different lengths")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        case(36, "get-predict", "GET", VERTEX, 405),
        case(36, "delete-predict", "DELETE", VERTEX, 405),
        case(36, "post-health", "POST", "/health", 405),
        case(36, "odd-method", "EXPLODE", VERTEX, 405),
        case(36, "below", "POST", f"{VERTEX}/x", 404),
        case(36, "delete-rows", "DELETE", KSERVE, 405),
        case(36, "put-models", "PUT", "/v1/models", 405),
        case(36, "post-document", "POST", "/openapi.json", 405),
        case(36, "document-like", "GET", "/openapi_json", 404),
    ],
)
def test_row36_method_and_path(attacked: Target, method: str, path: str, status: int) -> None:
    with attacked.survives():
        refused(attacked.ask(method, path), status)
