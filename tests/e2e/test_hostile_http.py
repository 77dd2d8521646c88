"""The list of hostile inputs, over HTTP with JSON: rows 1 to 36, by the list's row numbers.

What concerns the HTTP host alone is tried in ``tests/serving/transport/test_http_hostile``, too;
here a whole server is behind it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.hostile import (
    SLOW_MS,
    Reply,
    Target,
    assert_clean,
    bomb,
    document,
    read_reply,
    target,
    tree,
)

INFER = "/v2/models/simple/infer"
RTL = "\u202esimple"
LONG = "n" * 5000
MIB = 2**20


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("hostile")) as started:
        yield started


def case(row: int, name: str, *values: Any) -> Any:
    return pytest.param(*values, id=f"row{row:02}-{name}")


def refused(reply: Reply, status: int, says: str = "", *sent: str) -> None:
    assert (reply.status, reply.body) == (status, reply.body)
    error = reply.error
    assert error
    assert says in error, error
    assert_clean(error, sent)


def second(**fields: Any) -> dict[str, Any]:
    """The good body with fields of its second input changed; ``None`` takes one away."""
    body = document()
    changed = body["inputs"][1]
    changed.update(fields)
    for name in [n for n, what in fields.items() if what is None]:
        del changed[name]
    return body


def both(shape: list[int], count: int) -> dict[str, Any]:
    body = document()
    for given in body["inputs"]:
        given.update(shape=shape, data=[0] * count)
    return body


def one(dtype: str, shape: Any, data: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": dtype, "shape": shape, "data": data}]}


def renamed(*names: str) -> dict[str, Any]:
    good = document()["inputs"][0]
    return {"inputs": [{**good, "name": name} for name in names]}


def wanting(*outputs: Any) -> dict[str, Any]:
    listed = [{"name": out} if isinstance(out, str) else out for out in outputs]
    return document(outputs=listed)


def asking(**parameters: Any) -> dict[str, Any]:
    return document(parameters=parameters)


def classes(count: Any) -> dict[str, Any]:
    output = {"name": "x", "parameters": {"classification": count}}
    return {**one("FP32", [1, 4], [1, 4, 2, 3]), "outputs": [output]}


def raw(text: str) -> bytes:
    """The good body with this JSON as the data of its second input."""
    return json.dumps(second(data="HERE")).replace('"HERE"', text).encode()


SHARED = {"shared_memory_region": "nobody", "shared_memory_byte_size": 64}
WRONG = [
    case(1, "shape-32-data-16", both([2, 16], 16), "Expected 32, got 16"),
    case(1, "data-32-shape-16", both([1, 16], 32), "Expected 16, got 32"),
    case(2, "negative-batch", both([-1, 16], 16), "dimension of -1"),
    case(2, "two-negatives", both([-1, -16], 16), "dimension of -1"),
    case(2, "least-int64", both([-(2**63), 16], 16), "dimension of -9223372036854775808"),
    case(3, "huge-batch", both([2**40, 16], 16), "exceeds the maximum"),
    case(4, "2^62x4", both([2**62, 4], 0), "exceeds the maximum|is not INT32"),
    case(4, "2^33x2^31", both([2**33, 2**31], 16), "exceeds the maximum"),
    case(4, "2^63", both([2**63, 2], 16), "exceeds the maximum"),
    case(4, "2^64", both([2**64, 1], 16), "'shape' must be a list of integers"),
    case(4, "10^400", both([10**400], 16), "'shape'|not valid JSON"),
    case(4, "many-dims", both([2**62] * 200_000, 16), "32 dimensions"),
    case(5, "zero-batch", both([0, 16], 0), "dimension of 0|is not INT32"),
    case(5, "zero-dim", both([1, 0], 0), "dimension of 0|is not INT32"),
    case(5, "no-dims", both([], 1), "unexpected shape"),
    case(6, "batch-9-of-8", both([9, 16], 144), "batch-size must be <= 8"),
    case(7, "one-less", both([1, 16], 15), "Expected 16, got 15"),
    case(7, "one-more", both([1, 16], 17), "Expected 16, got 17"),
    case(10, "unknown-dtype", second(datatype="FLOAT128"), "'FLOAT128' is not a data-type"),
    case(10, "empty-dtype", second(datatype=""), "'' is not a data-type"),
    case(10, "wrong-dtype", second(datatype="INT64"), "expects 'INT32'"),
    case(10, "control-in-dtype", second(datatype="\r\n" + RTL), r"'\r\n\u202esimple'"),
    case(10, "long-dtype", second(datatype=LONG), "is not a data-type"),
    case(10, "dtype-number", second(datatype=3), "'datatype' must be a string"),
    case(10, "no-dtype", second(datatype=None), "'datatype' must be a string"),
    case(11, "missing", renamed("INPUT0"), "missing required input(s) ['INPUT1']"),
    case(11, "none", renamed(), "missing required"),
    case(11, "unknown", renamed("INPUT0", "INPUT1", "INPUT2"), "inference input 'INPUT2'"),
    case(11, "duplicate", renamed("INPUT0", "INPUT0"), "already exists in request"),
    case(11, "nul-in-name", renamed("INPUT0", "INPUT1\0"), r"'INPUT1\x00'"),
    case(11, "control-in-name", renamed("INPUT0", "\x1b[2J\n" + RTL), r"'\x1b[2J\n\u202esimple'"),
    case(11, "long-name", renamed("INPUT0", LONG), "unexpected inference input"),
    case(11, "name-number", second(name=7), "'name' must be a string"),
    case(11, "no-name", second(name=None), "'name' must be a string"),
    case(12, "unknown-output", wanting("OUTPUT9"), "inference output 'OUTPUT9'"),
    case(12, "duplicate-output", wanting("OUTPUT0", "OUTPUT0"), "requested more than once"),
    case(12, "control-in-output", wanting("\r\n" + RTL), r"'\r\n\u202esimple'"),
    case(12, "output-text", document(outputs=["OUTPUT0"]), "must be a list of objects"),
    case(12, "outputs-object", document(outputs={"name": "OUTPUT0"}), "must be a list of objects"),
    case(
        18,
        "data-short-nested",
        second(shape=[2, 8], data=[[1] * 8]),
        "unexpected shape|size mismatch",
    ),
    case(18, "data-object", second(data={"a": 1}), "'data' must be a list"),
    case(18, "data-text", second(data="AAAA"), "'data' must be a list"),
    case(18, "no-data", second(data=None), "'data' must be a list"),
    case(18, "no-shape", second(shape=None), "'shape' must be a list"),
    case(18, "shape-text", second(shape="[1,16]"), "'shape' must be a list"),
    case(18, "shape-floats", second(shape=[1.0, 16.0]), "'shape' must be a list of integers"),
    case(18, "shape-bools", second(shape=[True, 16]), "'shape' must be a list of integers"),
    case(20, "priority-bool", asking(priority=True), "'priority' must be"),
    case(20, "priority-text", asking(priority="1"), "'priority' must be"),
    case(20, "priority-float", asking(priority=1.0), "'priority' must be"),
    case(20, "priority-null", asking(priority=None), "must be an object of plain values"),
    case(20, "priority-negative", asking(priority=-1), "'priority' must be"),
    case(20, "timeout-negative", asking(timeout=-1), "'timeout' must be"),
    case(20, "timeout-2^64-1", asking(timeout=2**64 - 1), "'timeout' must be"),
    case(20, "reserved", asking(triton_x=1), "reserved"),
    case(20, "reserved-control", asking(**{"triton_\r\n" + RTL + LONG: 1}), "reserved"),
    case(20, "parameters-list", document(parameters=[1]), "must be an object"),
    case(20, "parameters-nested", asking(a={"b": 1}), "must be an object of plain values"),
    case(21, "zero", classes(0), "'classification' must be"),
    case(21, "negative", classes(-1), "'classification' must be"),
    case(21, "2^62", classes(2**62), "'classification' must be"),
    case(21, "bool", classes(True), "'classification' must be"),
    case(27, "truncated", json.dumps(document()).encode()[:-1], "not valid JSON"),
    case(27, "array", b"[]", "must be a JSON object"),
    case(27, "null", b"null", "must be a JSON object"),
    case(27, "number", b"1", "must be a JSON object"),
    case(27, "text", b'"inputs"', "must be a JSON object"),
    case(27, "empty-object", b"{}", "'inputs' must be a list of objects"),
    case(27, "nothing", b"", "not valid JSON"),
    case(27, "two-objects", b"{}{}", "not valid JSON"),
    case(27, "bad-utf-8", b'{"inputs": "\xff\xfe"}', "not valid JSON"),
    case(27, "lone-surrogate", b'{"inputs": "\\ud800"}', ""),
    case(27, "open-text", b'{"inputs": "' + b"a" * 100_000, "not valid JSON"),
    case(27, "mark", b"\xef\xbb\xbf{}", "not valid JSON"),
    case(27, "comment", b'{"inputs": [] /* */}', "not valid JSON"),
    case(27, "noise", bytes(range(256)), "not valid JSON"),
    case(27, "inputs-null", b'{"inputs": null}', "'inputs' must be"),
    case(27, "inputs-of-lists", b'{"inputs": [[]]}', "'inputs' must be"),
    case(27, "input-empty", b'{"inputs": [{}]}', "'name' must be a string"),
    case(27, "id-number", document(id=5), "'id' must be a string"),
    case(28, "nan", raw("[NaN]"), "not valid JSON"),
    case(28, "infinity", raw("[-Infinity]"), "not valid JSON"),
    case(28, "1e999", raw("[1e999]"), ""),
    case(28, "2^40", second(data=[2**40] * 16), "INT32 cannot hold"),
    case(28, "2^31", second(data=[0] * 15 + [2**31]), "INT32 cannot hold"),
    case(28, "2^64", raw(str([2**64] * 16)), "is not INT32"),
    case(28, "10^400", raw(f"[1{'0' * 400}]"), ""),
    case(28, "float", second(data=[0] * 15 + [1.5]), "is not INT32"),
    case(28, "whole-float", second(data=[1.0] * 16), "is not INT32"),
    case(28, "bool", second(data=[True] * 16), "is not INT32"),
    case(28, "one-bool", second(data=[1] * 15 + [True]), "is not INT32"),
    case(28, "text", second(data=["1"] * 16), "is not INT32"),
    case(28, "one-long-text", second(data=["a" * MIB, *[1] * 4000]), "is not INT32"),
    case(28, "null", second(data=[None] * 16), "is not INT32"),
    case(28, "object", second(data=[{"a": 1}]), "is not INT32"),
    case(28, "ragged", second(data=[[1, 2], [3]]), "different lengths"),
    case(28, "mixed-depth", second(data=[1, [2]]), "different lengths"),
    case(28, "65-deep", raw("[" * 65 + "1" + "]" * 65), "different lengths"),
    case(28, "empty-lists", raw("[" + "[]," * 15 + "[]]"), "is not INT32"),
    case(27, "many-objects", b'{"inputs": [' + b"{}," * 10**6 + b"{}]}", "objects and keys"),
    case(27, "two-million-lists", raw("[" + "[]," * 2 * 10**6 + "[]]"), "JSON lists"),
    case(27, "long-text", b'{"inputs": "' + rb"\\[\"{" * 10**6 + b'"}', "'inputs' must be"),
    case(29, "100k-deep", b"[" * 100_000, "exceeds maximum allowed limit (100)"),
    case(29, "100k-deep-closed", raw("[" * 100_000 + "]" * 100_000), "allowed limit (100)"),
    case(29, "100k-objects", b'{"a":' * 100_000, "allowed limit (100)"),
    case(29, "101-objects", b'{"a":' * 101 + b"1" + b"}" * 101, "allowed limit (100)"),
    case(29, "101-deep", raw("[" * 101 + "]" * 101), "allowed limit (100)"),
    case(29, "duplicate-key", b'{"inputs": [], "inputs": []}', "a key stands twice"),
    case(29, "duplicate-escaped", b'{"inputs": [], "\\u0069nputs": []}', "a key stands twice"),
    case(29, "duplicate-inner", raw('[1], "data": [2]'), "a key stands twice"),
    case(29, "duplicate-after-quote", b'{"a\\"": 1, "a\\"": 2, "inputs": []}', "stands twice"),
]


@pytest.mark.parametrize(("body", "says"), WRONG)
def test_wrong_body(attacked: Target, body: Any, says: str) -> None:
    model = "simple"
    if isinstance(body, dict) and body["inputs"] and body["inputs"][0].get("name") == "x":
        model = "scores"
    with attacked.survives():
        began_s = time.monotonic()
        reply = attacked.post(f"/v2/models/{model}/infer", body)
        assert time.monotonic() - began_s < 2
        assert reply.status == 400
        assert any(part in reply.error for part in says.split("|")), reply.error
        assert_clean(reply.error)


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        case(19, "text-number", "text", one("BYTES", [1, 2], ["a", 1]), "not a string"),
        case(19, "text-null", "text", one("BYTES", [1, 2], ["a", None]), "not a string"),
        case(19, "text-short", "text", one("BYTES", [1, 2], ["a"]), "size mismatch"),
        case(19, "text-more", "text", one("BYTES", [1, 2], ["a", "b", "c"]), "size mismatch"),
        case(
            20,
            "no-classes",
            "text",
            {
                **one("BYTES", [1, 2], ["a", "b"]),
                "outputs": [{"name": "x", "parameters": {"classification": 1}}],
            },
            "numeric",
        ),
        case(28, "float-overflow", "scores", one("FP32", [1, 4], [1e39] * 4), "FP32 cannot hold"),
        case(28, "half-overflow", "half", one("FP16", [1, 2], [70_000.0, 1]), "FP16 cannot hold"),
        case(28, "float-of-text", "scores", one("FP32", [1, 4], ["NaN"] * 4), "is not FP32"),
        case(28, "bool-of-1", "flags", one("BOOL", [1, 2], [0, 1]), "is not BOOL"),
        case(28, "int8-128", "tiny", one("INT8", [1, 2], [0, 128]), "INT8 cannot hold"),
        case(28, "int64-2^63", "long", one("INT64", [1, 2], [-1, 2**63]), ""),
        case(3, "any-2^40", "any", one("FP32", [2**40], [1] * 16), "exceeds the maximum"),
        case(4, "any-2^32x2^32", "any", one("FP32", [2**32, 2**32], []), "exceeds the maximum"),
        case(5, "any-zero", "any", one("FP32", [0], []), "dimension of 0"),
        case(2, "any-negatives", "any", one("FP32", [-1, -1], [1]), "dimension of -1"),
    ],
)
def test_wrong_body_for_others(attacked: Target, model: str, body: Any, says: str) -> None:
    with attacked.survives():
        refused(attacked.post(f"/v2/models/{model}/infer", body), 400, says)


@pytest.mark.parametrize(
    ("model", "status", "says"),
    [
        case(13, "unknown", "nobody", 404, "unknown model"),
        case(13, "empty", "", 404, "no such path"),
        case(13, "blank", "%20", 400, "names no model"),
        case(13, "long", LONG, 404, "unknown model"),
        case(14, "parents", "../../etc/passwd", 404, "no such path"),
        case(14, "parents-encoded", "..%2f..%2fetc%2fpasswd", 404, "no such path"),
        case(14, "parents-twice-encoded", "..%252f..%252fetc", 404, "unknown model"),
        case(14, "backslashes", "..%5c..%5cetc", 404, "unknown model"),
        case(14, "right-to-left", urllib.parse.quote(RTL), 404, r"'\u202esimple'"),
        case(14, "newline", "simple%0d%0aX:y", 400, r"simple\r\nX:y"),
        case(14, "escape-codes", "%1b[31msimple", 400, r"\x1b[31msimple"),
        case(15, "nul", "simple%00evil", 400, "NUL"),
        case(16, "version-parents", "simple/versions/../1", 404, "no such path"),
        case(16, "version-encoded", "simple/versions/..%2f1", 404, "no such path"),
        case(16, "version-negative", "simple/versions/-5", 404, "no such path"),
        case(16, "version-2^70", f"simple/versions/{2**70}", 400, "specified version"),
        case(16, "version-2^63", f"simple/versions/{2**63}", 400, "specified version"),
        case(16, "version-0", "simple/versions/0", 400, "specified version"),
        case(16, "version-7", "simple/versions/7", 404, "is not found"),
        case(16, "version-text", "simple/versions/latest", 404, "no such path"),
        case(16, "version-wide-digit", "simple/versions/%ef%bc%91", 404, "no such path"),
    ],
)
def test_wrong_name(attacked: Target, model: str, status: int, says: str) -> None:
    with attacked.survives():
        refused(attacked.post(f"/v2/models/{model}/infer", document()), status, says)
        for what in ("", "/config"):
            refused(attacked.ask("GET", f"/v2/models/{model}{what}"), status)
        for what in ("/stats", "/ready"):
            reply = attacked.ask("GET", f"/v2/models/{model}{what}")
            assert reply.status in (400, 404)
            assert_clean(reply.body.decode())


@pytest.mark.parametrize(
    "body",
    [
        case(22, "input", second(parameters=SHARED)),
        case(22, "input-offset", second(parameters={**SHARED, "shared_memory_offset": -1})),
        case(22, "output", wanting({"name": "OUTPUT0", "parameters": SHARED})),
        case(22, "key", second(parameters={"shared_memory_region": "/../x"})),
    ],
)
def test_shared_memory_of_tensors(attacked: Target, body: dict[str, Any]) -> None:
    with attacked.survives():
        refused(attacked.post(INFER, body), 501, "shared memory is disabled")


@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_row22_shared_memory_regions(attacked: Target, kind: str) -> None:
    key = {"key": "/../x", "offset": -1, "byte_size": 2**64}
    with attacked.survives():
        refused(attacked.post(f"/v2/{kind}sharedmemory/region/a/register", key), 501)
        refused(attacked.post(f"/v2/{kind}sharedmemory/status", key), 405)
        is_off = kind == "system"
        for path in ("region/a/unregister", "unregister"):
            reply = attacked.post(f"/v2/{kind}sharedmemory/{path}", key)
            assert reply.status == (501 if is_off else 200)
        refused(
            attacked.ask("GET", f"/v2/{kind}sharedmemory/region/a/status"), 501 if is_off else 404
        )
        assert attacked.ask("GET", f"/v2/{kind}sharedmemory/status").status == (
            501 if is_off else 200
        )


# Rows 23 and 24: the model takes one request at a time.


def slow(**parameters: Any) -> dict[str, Any]:
    return {**one("FP32", [2], [1, 2]), "parameters": parameters}


def slow_request() -> bytes:
    body = json.dumps(slow()).encode()
    return b"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )


def test_row23_timeout(attacked: Target) -> None:
    with attacked.survives():
        before = attacked.successes("slow")
        refused(attacked.post("/v2/models/slow/infer", slow(timeout=1)), 504, "deadline")
        with attacked.connect() as busy:
            busy.sendall(slow_request())
            time.sleep(SLOW_MS / 3000)
            refused(attacked.post("/v2/models/slow/infer", slow(timeout=20_000)), 504, "deadline")
            assert read_reply(busy).status == 200
        assert attacked.successes("slow") == before + 1


def test_row24_clients_that_vanish_from_the_queue(attacked: Target) -> None:
    with attacked.survives():
        before = attacked.successes("slow")
        with attacked.connect() as busy:
            busy.sendall(slow_request())
            time.sleep(SLOW_MS / 3000)
            gone = [attacked.connect() for _ in range(10)]
            for connection in gone:
                connection.sendall(slow_request())
            time.sleep(0.05)
            for connection in gone:
                connection.close()
            began_s = time.monotonic()
            assert attacked.post("/v2/models/slow/infer", slow()).status == 200
            assert time.monotonic() - began_s < 2.5 * SLOW_MS / 1000  # nobody in front of it
            assert read_reply(busy).status == 200
        assert attacked.successes("slow") == before + 2


# Row 25: the repository.

FILE = {"file:1/../../x": "ZXZpbA=="}


@pytest.mark.parametrize(
    ("model", "body", "status", "says"),
    [
        case(25, "parents", "..%2f..%2fetc", {}, 404, "no such path"),
        case(25, "dots", "..", {}, 400, "path traversal"),
        case(25, "backslashes", "..%5cetc", {}, 400, "path traversal"),
        case(25, "empty", "", {}, 404, "no such path"),
        case(25, "nul", "simple%00evil", {}, 400, "NUL"),
        case(25, "star", "*", {}, 400, "not a model name"),
        case(25, "right-to-left", urllib.parse.quote(RTL), {}, 400, r"\u202esimple"),
        case(25, "unknown", "nobody", {}, 404, "failed to load 'nobody'"),
        case(25, "broken", "broken", {}, 500, "failed to load 'broken'"),
        case(25, "file", "simple", {"parameters": FILE}, 400, "files are not taken"),
        case(25, "file-new", "fresh", {"parameters": FILE}, 400, "files are not taken"),
        case(25, "config", "simple", {"parameters": {"config": "{"}}, 400, "not valid JSON"),
        case(25, "config-object", "simple", {"parameters": {"config": {}}}, 400, "a string"),
        case(25, "config-and-file", "simple", {"parameters": {"config": "{}", **FILE}}, 400, ""),
        case(25, "parameters-list", "simple", {"parameters": [FILE]}, 400, "must be an object"),
        case(25, "parameters-null", "simple", {"parameters": None}, 400, "must be an object"),
        case(25, "array", "simple", b"[]", 400, "must be a JSON object"),
        case(25, "truncated", "simple", b'{"parameters":', 400, "not valid JSON"),
        case(25, "deep", "simple", b"[" * 100_000, 400, "allowed limit (100)"),
    ],
)
def test_load(attacked: Target, model: str, body: Any, status: int, says: str) -> None:
    before = tree(attacked.root)
    with attacked.survives():
        refused(attacked.post(f"/v2/repository/models/{model}/load", body), status, says)
    assert tree(attacked.root) == before


@pytest.mark.parametrize(
    ("model", "status"),
    [
        case(25, "parents", "..%2f..%2fetc", 404),
        case(25, "dots", "..", 400),
        case(25, "nul", "simple%00", 400),
        case(25, "unknown", "nobody", 200),
    ],
)
def test_unload(attacked: Target, model: str, status: int) -> None:
    with attacked.survives():
        reply = attacked.post(f"/v2/repository/models/{model}/unload", b"")
        assert reply.status == status
        assert_clean(reply.body.decode())


@pytest.mark.parametrize("body", [case(27, "array", b"[]"), case(27, "noise", b"\xff{")])
def test_index(attacked: Target, body: bytes) -> None:
    with attacked.survives():
        refused(attacked.post("/v2/repository/index", body), 400)


# Rows 30 and 31: binary tensors.


@pytest.mark.parametrize("length", ["-1", "abc", "999999", str(2**64), "0", "7", "", "5, 6", "٣"])
def test_row30_binary_header(attacked: Target, length: str) -> None:
    with attacked.survives():
        body = json.dumps(document()).encode()
        head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {length}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        refused(attacked.send(head.encode() + body), 400)


@pytest.mark.parametrize("size", [63, 65, 0, -1, 2**62, "64", None])
def test_row31_binary_size(attacked: Target, size: Any) -> None:
    with attacked.survives():
        body = second(data=None, parameters={"binary_data_size": size})
        refused(attacked.post(INFER, body), 400)
        head = json.dumps(body).encode()
        header = {"Inference-Header-Content-Length": str(len(head))}
        refused(attacked.post(INFER, head + bytes(64), header), 400)
        both_ways = json.dumps(second(parameters={"binary_data_size": 64})).encode()
        header = {"Inference-Header-Content-Length": str(len(both_ways))}
        refused(attacked.post(INFER, both_ways + bytes(64), header), 400)
        asked = wanting({"name": "OUTPUT0", "parameters": {"binary_data": size}})
        assert attacked.post(INFER, asked).status in (200, 400)


# Rows 32 to 34: encodings and framing.


GOOD = json.dumps(document()).encode()
PACKED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        case(32, "good", "gzip", PACKED, 200),
        case(32, "good-deflate", "deflate", zlib.compress(GOOD), 200),
        case(32, "plain", "gzip", GOOD, 400),
        case(32, "cut", "gzip", PACKED[:-9], 400),
        case(32, "no-trailer", "gzip", PACKED[:-8], 400),
        case(32, "wrong-sum", "gzip", PACKED[:-8] + bytes(8), 400),
        case(32, "flipped", "gzip", PACKED[:40] + b"\xff\xff" + PACKED[42:], 400),
        case(32, "appended", "gzip", PACKED + b"x", 400),
        case(32, "empty", "gzip", b"", 400),
        case(32, "noise", "deflate", bytes(range(256)), 400),
        case(32, "headerless", "deflate", zlib.compress(GOOD, wbits=-15), 400),
        case(32, "many-members", "gzip", gzip.compress(b"") * 10_000, 400),
        case(32, "br", "br", GOOD, 415),
        case(32, "zstd", "zstd", GOOD, 415),
        case(32, "twice", "gzip, gzip", gzip.compress(PACKED), 415),
        case(32, "control", "gzip\x0b", PACKED, 400),
        case(32, "long", "g" * 10_000, PACKED, 415),
    ],
)
def test_encoding(attacked: Target, coding: str, body: bytes, status: int) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Encoding: {coding}\r\n"
    with attacked.survives():
        reply = attacked.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if status == 200:
            assert reply.status == 200
        else:
            refused(reply, status)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_row32_bomb(attacked: Target, coding: str) -> None:
    body = bomb(coding, 2**30, b" ")
    with attacked.survives():
        refused(attacked.post(INFER, body, {"Content-Encoding": coding}), 413, "larger than")


def post_head(*lines: str) -> bytes:
    return "\r\n".join((f"POST {INFER} HTTP/1.1", "Host: x", *lines, "", "")).encode()


CHUNKED = "Transfer-Encoding: chunked"
FRAMING = [
    case(33, "body-over-limit", post_head(f"Content-Length: {64 * MIB + 1}"), 413),
    case(33, "body-2^63", post_head(f"Content-Length: {2**63}"), 413),
    case(33, "long-url", b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    case(33, "long-query", b"GET /v2?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    case(33, "2000-headers", post_head(*[f"X-{n}: y" for n in range(2000)]), 431),
    case(33, "long-header", post_head("X: " + "y" * 200_000), 431),
    case(34, "two-lengths", post_head("Content-Length: 2", "Content-Length: 2") + b"{}", 400),
    case(34, "two-values", post_head("Content-Length: 2, 2") + b"{}", 400),
    case(34, "other-lengths", post_head("Content-Length: 2", "content-length: 3") + b"{}", 400),
    case(34, "negative-length", post_head("Content-Length: -1"), 400),
    case(34, "signed-length", post_head("Content-Length: +2") + b"{}", 400),
    case(34, "hex-length", post_head("Content-Length: 0x2") + b"{}", 400),
    case(34, "text-length", post_head("Content-Length: two") + b"{}", 400),
    case(34, "endless-length", post_head("Content-Length: " + "9" * 5000), 400),
    case(34, "both", post_head("Content-Length: 2", CHUNKED) + b"0\r\n\r\n", 400),
    case(34, "both-turned", post_head(CHUNKED, "Content-Length: 2") + b"0\r\n\r\n", 400),
    case(34, "space-before-colon", post_head("Content-Length : 2") + b"{}", 400),
    case(34, "bare-newlines", post_head().replace(b"\r\n", b"\n"), 400),
    case(34, "nul-in-header", post_head("X: \0"), 400),
    case(34, "coding-twice", post_head("Transfer-Encoding: chunked, chunked"), 501),
    case(34, "coding-unknown", post_head("Transfer-Encoding: gzip"), 501),
    case(34, "chunk-2^64", post_head(CHUNKED) + b"10000000000000000\r\n", 400),
    case(34, "chunk-2^64-1", post_head(CHUNKED) + b"ffffffffffffffff\r\n", 400),
    case(34, "chunk-negative", post_head(CHUNKED) + b"-1\r\n", 400),
    case(34, "chunk-not-hex", post_head(CHUNKED) + b"zz\r\n", 400),
    case(34, "chunk-65-mib", post_head(CHUNKED) + b"4100000\r\n", 413),
    case(34, "tiny-chunks", post_head(CHUNKED) + b"1\r\nx\r\n" * 1_000_000, 400),
    case(34, "long-extension", post_head(CHUNKED) + b"1;" + b"x" * 1_000_000, 400),
    case(34, "http-2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    case(34, "http-0.9", b"GET /v2\r\n\r\n", 400),
    case(34, "tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
    case(34, "noise", bytes(range(128, 256)) * 20 + b"\r\n\r\n", 400),
]


@pytest.mark.parametrize(("data", "status"), FRAMING)
def test_framing(attacked: Target, data: bytes, status: int) -> None:
    with attacked.survives(), attacked.connect() as connection:
        sender = threading.Thread(target=send_all, args=(connection, data))
        sender.start()
        reply = read_reply(connection)
        refused(reply, status, "", "HTTP/1.1")
        assert reply.headers["connection"] == "close"
        sender.join()
        connection.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def send_all(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # refused before all was sent
        connection.sendall(data)


def test_row35_slow_clients(attacked: Target) -> None:
    """Hundreds that send a byte now and then; the body's own time limit is tried elsewhere."""
    starts = [b"GET /v2 HTTP/1.1\r\nX: "] * 100 + [post_head("Content-Length: 999")] * 100
    with attacked.survives(), contextlib.ExitStack() as stack:
        slow_ones = [stack.enter_context(attacked.connect()) for _ in starts]
        for connection, start in zip(slow_ones, starts, strict=True):
            connection.sendall(start)
        until_s = time.monotonic() + 11.5
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            attacked.assert_serving()
            assert time.monotonic() - began_s < 2
            for connection in slow_ones:
                send_all(connection, b"a")
            time.sleep(0.3)
        for connection in slow_ones[:100]:
            refused(read_reply(connection), 408)


def test_row24_clients_that_reset(attacked: Target) -> None:
    request = post_head(f"Content-Length: {len(GOOD)}") + GOOD
    with attacked.survives():
        for attempt in range(200):
            with attacked.connect() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request[: 10 * attempt])
                time.sleep(attempt * 5e-6)


# Row 36: methods and paths.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        case(36, "delete-infer", "DELETE", INFER, 405),
        case(36, "get-infer", "GET", INFER, 405),
        case(36, "put-infer", "PUT", INFER, 405),
        case(36, "get-index", "GET", "/v2/repository/index", 405),
        case(36, "get-load", "GET", "/v2/repository/models/simple/load", 405),
        case(36, "post-ready", "POST", "/v2/health/ready", 405),
        case(36, "post-root", "POST", "/", 405),
        case(36, "slash", "GET", "/v2/", 404),
        case(36, "unknown", "POST", "/v2/models/simple/explode", 404),
        case(36, "file", "GET", "/../../etc/passwd", 404),
        case(36, "post-metrics", "POST", "/metrics", 405),
        case(36, "delete-document", "DELETE", "/openapi.json", 405),
        case(36, "vertex-that-is-off", "POST", "/predict", 404),
        case(36, "log-settings", "DELETE", "/v2/logging", 405),
        case(36, "trace-settings", "PUT", "/v2/trace/setting", 405),
        case(36, "odd-method", "EXPLODE", INFER, 405),
        case(36, "connect", "CONNECT", "127.0.0.1:1", 404),
        case(36, "trace", "TRACE", "/v2", 405),
        case(36, "star", "OPTIONS", "*", 404),
        case(36, "proxy", "GET", "http://127.0.0.1:1/etc", 404),
    ],
)
def test_method_and_path(attacked: Target, method: str, path: str, status: int) -> None:
    with attacked.survives():
        reply = attacked.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        refused(reply, status)
        assert ("allow" in reply.headers) == (status == 405)
