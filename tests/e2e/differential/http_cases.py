"""Everything over HTTP."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tests.e2e.differential.grpc_infer_cases import OTHER, ROW, raw, values
from tests.e2e.differential.models import DTYPES, TWINS
from tests.e2e.differential.peers import Case, Outcome, Peer

LENGTH = "Inference-Header-Content-Length"
DATA = list(range(16))


def tensor(
    name: str, dtype: str, shape: Any, data: Any = None, **parameters: Any
) -> dict[str, Any]:
    made = {"name": name, "datatype": dtype, "shape": shape}
    if data is not None:
        made["data"] = data
    return made | ({"parameters": parameters} if parameters else {})


def document(**fields: Any) -> dict[str, Any]:
    """A good body for ``simple``, or one with other fields."""
    inputs = [tensor(f"INPUT{i}", "INT32", [1, 16], DATA) for i in range(2)]
    return {"inputs": inputs, **fields}


def post(name: str, model: str, body: Any, headers: Mapping[str, str] | None = None) -> Case:
    return Case(f"http/{name}", lambda peer: [peer.post(model, body, headers)])


def ask(name: str, method: str, path: str, body: Any = b"") -> Case:
    return Case(f"http/{name}", lambda peer: [peer.ask(method, path, body)])


def plain(dtype: str, count: int) -> list[Any]:
    """Values as JSON has them."""
    found = values(dtype, count)
    return [v.decode() if isinstance(v, bytes) else v for v in found]


def with_tail(head: Any, tail: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(head).encode()
    return text + tail, {LENGTH: str(len(text))}


def of_dtype(dtype: str) -> Iterator[Case]:
    """One dtype as JSON and as bytes."""
    model = f"echo_{dtype}"

    def body(shape: list[int], data: Any, declared: str = dtype, **more: Any) -> dict[str, Any]:
        return {"inputs": [tensor("x", declared, shape, data)], **more}

    for rows in (1, 3):
        data = plain(dtype, rows * 2)
        nested = [data[i : i + 2] for i in range(0, rows * 2, 2)]
        yield post(f"{dtype}/flat-{rows}", model, body([rows, 2], data))
        yield post(f"{dtype}/nested-{rows}", model, body([rows, 2], nested))
    two = plain(dtype, 2)
    for name, shape, found in (
        ("less", [1, 2], two[:1]),
        ("more", [1, 2], [*two, two[0]]),
        ("none", [1, 2], []),
        ("0-rows", [0, 2], []),
        ("9-rows", [9, 2], plain(dtype, 18)),
        ("inner", [1, 3], plain(dtype, 3)),
        ("rank", [2], two),
        ("null", [1, 2], [None, None]),
        ("objects", [1, 2], [{}, {}]),
        ("text", [1, 2], ["a", "b"]),
        ("bools", [1, 2], [True, False]),
        ("floats", [1, 2], [1.5, 2.5]),
        ("whole-floats", [1, 2], [1.0, 2.0]),
        ("integers", [1, 2], [1, 2]),
        ("too-large", [1, 2], [2**70, 0]),
        ("negative", [1, 2], [-1, -1]),
        ("2^40", [1, 2], [2**40, 0]),
    ):
        yield post(f"{dtype}/{name}", model, body(shape, found))
    yield post(f"{dtype}/as-{OTHER[dtype]}", model, body([1, 2], two, OTHER[dtype]))
    good = raw(dtype, values(dtype, 2))
    for name, size, tail in (
        ("good", len(good), good),
        ("size-less", len(good) - 1, good),
        ("size-more", len(good) + 1, good),
        ("byte-less", len(good), good[:-1]),
        ("byte-more", len(good), good + b"\0"),
        ("both-more", len(good) + 1, good + b"\0"),
    ):
        head = {"inputs": [tensor("x", dtype, [1, 2], binary_data_size=size)]}
        yield post(f"{dtype}/binary/{name}", model, *with_tail(head, tail))
    head = {
        "inputs": [tensor("x", dtype, [1, 2], binary_data_size=len(good))],
        "parameters": {"binary_data_output": True},
    }
    yield post(f"{dtype}/binary/output", model, *with_tail(head, good))
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    asked = body([1, 2], two, outputs=outputs) if dtype not in ("FP16", "BF16") else {}
    if asked:
        yield post(f"{dtype}/json-in-binary-out", model, asked)
    yield post(f"{dtype}/raw-mode", model, good if dtype != "BYTES" else b"text", {LENGTH: "0"})


def binary() -> Iterator[Case]:
    """Headers and sizes of the binary extension."""
    pair = [tensor(f"INPUT{i}", "INT32", [1, 16], binary_data_size=64) for i in range(2)]
    good, headers = with_tail({"inputs": pair}, ROW * 2)
    for name, length in {
        "good": headers[LENGTH], "negative": "-1", "text": "abc", "beyond": "100000",
        "2^64": str(2**64),
        "empty": "", "float": "1.5", "short": "5", "plus": "+" + headers[LENGTH], "blank": " ",
    }.items():  # fmt: skip
        yield post(f"binary/header-{name}", "simple", good, {LENGTH: length})
    yield post("binary/no-header", "simple", good)
    for name, size in {
        "negative": -1, "2^62": 2**62, "text": "64", "float": 64.0, "bool": True, "null": None,
        "zero": 0,
    }.items():  # fmt: skip
        inputs = [pair[0], tensor("INPUT1", "INT32", [1, 16], binary_data_size=size)]
        yield post(f"binary/size-{name}", "simple", *with_tail({"inputs": inputs}, ROW * 2))
    both = [pair[0], tensor("INPUT1", "INT32", [1, 16], DATA, binary_data_size=64)]
    yield post("binary/data-twice", "simple", *with_tail({"inputs": both}, ROW * 2))
    mixed = [pair[0], tensor("INPUT1", "INT32", [1, 16], DATA)]
    yield post("binary/one-of-two", "simple", *with_tail({"inputs": mixed}, ROW))
    yield post("binary/too-much", "simple", *with_tail({"inputs": pair}, ROW * 3))
    for name, parameters, outputs in (
        ("all", {"binary_data_output": True}, None),
        ("all-named", {"binary_data_output": True}, [{"name": "OUTPUT0"}]),
        (
            "one",
            {},
            [{"name": "OUTPUT0", "parameters": {"binary_data": True}}, {"name": "OUTPUT1"}],
        ),
        (
            "all-but-one",
            {"binary_data_output": True},
            [{"name": "OUTPUT0", "parameters": {"binary_data": False}}, {"name": "OUTPUT1"}],
        ),
        ("text", {"binary_data_output": "yes"}, None),
        ("number", {"binary_data_output": 1}, None),
        ("one-text", {}, [{"name": "OUTPUT0", "parameters": {"binary_data": "yes"}}]),
    ):
        fields: dict[str, Any] = {"parameters": parameters}
        if outputs:
            fields["outputs"] = outputs
        yield post(f"binary/output-{name}", "simple", document(**fields))
    yield post("raw-mode/two-inputs", "simple", ROW * 2, {LENGTH: "0"})
    yield post("raw-mode/size", "echo_INT32", bytes(12), {LENGTH: "0"})
    yield post("raw-mode/nothing", "echo_INT32", b"", {LENGTH: "0"})
    yield post("raw-mode/scores", "scores", np.float32([1, 2, 3, 4]).tobytes(), {LENGTH: "0"})
    yield post("raw-mode/two-unknown-sizes", "flex", bytes(16), {LENGTH: "0"})


def compression() -> Iterator[Case]:
    good = json.dumps(document()).encode()
    for name, coding, body in (
        ("gzip", "gzip", gzip.compress(good)),
        ("deflate", "deflate", zlib.compress(good)),
        ("identity", "identity", good),
        ("br", "br", good),
        ("unknown", "x", good),
        ("corrupt", "gzip", gzip.compress(good)[:-9]),
        ("noise", "gzip", b"noise" * 9),
        ("plain", "gzip", good),
        ("raw-deflate", "deflate", zlib.compress(good)[2:-4]),
        ("twice", "gzip, gzip", gzip.compress(gzip.compress(good))),
    ):
        yield post(f"compression/sent-{name}", "simple", body, {"Content-Encoding": coding})
    for name in ("gzip", "deflate", "identity", "br", "gzip, deflate", "*", "gzip;q=0"):
        yield post(f"compression/asked-{name}", "simple", document(), {"Accept-Encoding": name})
    tail, headers = with_tail(
        {"inputs": [tensor(f"INPUT{i}", "INT32", [1, 16], binary_data_size=64) for i in range(2)]},
        ROW * 2,
    )
    coded = {**headers, "Content-Encoding": "gzip"}
    yield post("compression/binary", "simple", gzip.compress(tail), coded)


def bodies() -> Iterator[Case]:
    """Bodies that are no requests, and requests that are wrong."""
    good = document()
    text = json.dumps(good).encode()
    first, second = good["inputs"]
    for name, body in {
        "good": good, "empty": b"", "truncated": text[:-1], "array": b"[]", "null": b"null",
        "number": b"1", "object": b"{}", "two": b"{}{}", "noise": bytes(range(256)),
        "bad-utf-8": b'{"inputs": "\xff\xfe"}', "comment": b'{"inputs": [] /* */}',
        "deep": b'{"a":' * 101 + b"1" + b"}" * 101, "very-deep": b"[" * 100_000,
        "duplicate-key": text[:-1] + b', "id": "a", "id": "b"}',
        "nan": text.replace(b"15]", b"NaN]", 1), "infinity": text.replace(b"15]", b"Infinity]", 1),
        "1e999": text.replace(b"15]", b"1e999]", 1), "mark": b"\xef\xbb\xbf" + text,
        "blank-after": text + b" \n", "unknown-key": document(nothing=1),
        "inputs-null": {"inputs": None}, "inputs-object": {"inputs": {}},
        "inputs-empty": {"inputs": []},
        "inputs-of-lists": {"inputs": [[]]}, "input-empty": {"inputs": [{}]},
        "id-text": document(id="abc"), "id-number": document(id=7), "id-null": document(id=None),
        "id-empty": document(id=""), "parameters-list": document(parameters=[]),
        "parameters-null": document(parameters=None), "outputs-null": document(outputs=None),
        "outputs-empty": document(outputs=[]), "outputs-of-text": document(outputs=["OUTPUT0"]),
        "outputs-object": document(outputs={"name": "OUTPUT0"}),
        "outputs-one": document(outputs=[{"name": "OUTPUT1"}]),
        "outputs-swapped": document(outputs=[{"name": "OUTPUT1"}, {"name": "OUTPUT0"}]),
        "outputs-twice": document(outputs=[{"name": "OUTPUT0"}] * 2),
        "outputs-unknown": document(outputs=[{"name": "OUTPUT9"}]),
        "outputs-no-name": document(outputs=[{}]),
        "missing": {"inputs": [first]}, "twice": {"inputs": [first, first]},
        "unknown": {"inputs": [first, {**second, "name": "OTHER"}]},
        "one-more": {"inputs": [first, second, {**second, "name": "OTHER"}]},
        "two-batches": {"inputs": [tensor("INPUT0", "INT32", [2, 16], DATA * 2), second]},
        **{
            f"input-{key}-{what}": {"inputs": [first, {**second, key: value}]}
            for key, what, value in (
                ("name", "number", 7), ("name", "null", None), ("datatype", "unknown", "FLOAT128"),
                ("datatype", "lower", "int32"), ("datatype", "number", 3),
                ("shape", "text", "[1,16]"),
                ("shape", "floats", [1.0, 16.0]), ("shape", "bools", [True, 16]),
                ("shape", "null", None),
                # A shape of 2^40 rows ends Triton 2.51's process.
                ("shape", "negative", [-1, 16]), ("shape", "2^63", [2**63, 2]),
                ("shape", "wraps", [2**62, 4]), ("shape", "empty", []), ("data", "text", "abc"),
                ("data", "number", 5), ("data", "object", {"a": 1}), ("data", "null", None),
                ("data", "ragged", [[1, 2], [3]]), ("data", "deep", [[[DATA]]]),
                ("parameters", "list", []),
            )
        },
        **{
            f"input-no-{key}": {"inputs": [first, {k: v for k, v in second.items() if k != key}]}
            for key in ("name", "datatype", "shape", "data")
        },
    }.items():  # fmt: skip
        yield post(f"body/{name}", "simple", body)


VALUES = {
    "bool": True, "1": 1, "0": 0, "negative": -1, "2^62": 2**62, "2^63": 2**63, "2^64": 2**64,
    "float": 1.5, "text": "1", "null": None, "list": [1], "object": {},
}  # fmt: skip


def parameters() -> Iterator[Case]:
    for name in ("priority", "timeout", "sequence_id", "sequence_start", "triton_x", "anything"):
        for kind, value in VALUES.items():
            yield post(f"parameter/{name}/{kind}", "simple", document(parameters={name: value}))
    scores = [tensor("x", "FP32", [1, 4], [1, 4, 2, 3])]
    for kind, value in {**VALUES, "2": 2, "9": 9}.items():
        outputs = [{"name": "y", "parameters": {"classification": value}}]
        yield post(f"classes/{kind}", "scores", {"inputs": scores, "outputs": outputs})
    outputs = [{"name": "y", "parameters": {"classification": 2, "binary_data": True}}]
    yield post("classes/binary", "scores", {"inputs": scores, "outputs": outputs})


def sequences() -> Iterator[Case]:
    def run(peer: Peer) -> list[Outcome]:
        def step(number: int, **given: Any) -> Outcome:
            body = {"inputs": [tensor("x", "INT64", [1, 1], [number])], "parameters": given}
            return peer.post("sequence", body)

        return [
            step(1, sequence_id=21, sequence_start=True),
            step(2, sequence_id=21),
            step(3, sequence_id=21, sequence_end=True),
            step(4, sequence_id=21),
            step(5),
            step(6, sequence_id="text", sequence_start=True, sequence_end=True),
        ]

    yield Case("http/sequence", run)


def decoupled() -> Iterator[Case]:
    inputs = [tensor("x", "FP32", [2], [1, 2]), tensor("n", "INT32", [1], [2])]
    yield post("repeat", "repeat", {"inputs": inputs})
    yield post("repeat-wrong", "repeat", {"inputs": inputs[:1]})


def _without_platform(found: Any) -> Any:
    return {k: v for k, v in found.items() if k != "platform"} if isinstance(found, dict) else found


def _config(found: Any) -> Any:
    keys = ("name", "max_batch_size")
    tensors = [
        [(t["name"], t["data_type"], t["dims"]) for t in found[side]]
        for side in ("input", "output")
    ]
    return [found[key] for key in keys], tensors


def _index(found: Any) -> Any:
    return sorted((m["name"], m.get("version"), m.get("state")) for m in found)


def paths() -> Iterator[Case]:
    """Every path, with the methods and names that it has and has not."""
    for twin in TWINS:
        base = f"/v2/models/{twin.name}"
        yield Case(
            f"http/model/{twin.name}/metadata",
            lambda peer, p=base: [peer.ask("GET", p, view=_without_platform)],
        )
        yield Case(
            f"http/model/{twin.name}/config",
            lambda peer, p=base: [peer.ask("GET", f"{p}/config", view=_config)],
        )
        yield ask(f"model/{twin.name}/ready", "GET", f"{base}/ready")
    names = (
        "nobody",
        "",
        "%20",
        "..",
        "..%2fsimple",
        "spare%00evil",
        "Simple",
        "simple%0d%0a",
        "n" * 500,
    )
    versions = ("1", "3", "2", "0", "x", "01", "-1", "+1", "1.0", "", str(2**63), str(2**70))
    for name in names:
        for verb in ("infer", "ready", "config", "stats"):
            method, body = ("POST", document()) if verb == "infer" else ("GET", b"")
            label = name if len(name) < 30 else "long"
            yield Case(
                f"http/name/{label or 'empty'}/{verb}",
                lambda peer, m=method, p=f"/v2/models/{name}/{verb}", b=body: [
                    peer.ask(m, p, b, view=lambda _: None)
                ],
            )
    inputs = {"inputs": [tensor("x", "INT32", [1, 2], [1, 2])]}
    for version in versions:
        base = f"/v2/models/versions/versions/{version}"
        yield ask(f"version/{version or 'empty'}/infer", "POST", f"{base}/infer", inputs)
        yield ask(f"version/{version or 'empty'}/ready", "GET", f"{base}/ready")
        yield Case(
            f"http/version/{version or 'empty'}/stats",
            lambda peer, p=base: [peer.ask("GET", f"{p}/stats", view=lambda _: None)],
        )
    infer = "/v2/models/simple/infer"
    for name, method, path in (
        ("live", "GET", "/v2/health/live"), ("ready", "GET", "/v2/health/ready"),
        ("live-post", "POST", "/v2/health/live"), ("server-slash", "GET", "/v2/"),
        ("root", "GET", "/"),
        ("infer-get", "GET", infer), ("infer-put", "PUT", infer), ("infer-delete", "DELETE", infer),
        ("infer-head", "HEAD", infer), ("unknown-verb", "POST", "/v2/models/simple/explode"),
        ("index-get", "GET", "/v2/repository/index"),
        ("index-of-one", "POST", "/v2/repository/x/index"),
        ("load-get", "GET", "/v2/repository/models/simple/load"),
        ("v1", "GET", "/v1/models/simple"),
        ("metrics", "GET", "/metrics"), ("slash-after", "GET", "/v2/models/simple/"),
        ("query", "GET", "/v2/health/live?x=1"), ("double-slash", "GET", "//v2/health/live"),
        ("generate", "POST", "/v2/models/simple/generate"),
        ("generate-stream", "POST", "/v2/models/simple/generate_stream"),
    ):  # fmt: skip
        yield ask(f"path/{name}", method, path)
    yield Case("http/server", lambda peer: [peer.ask("GET", "/v2", view=lambda d: d["name"])])


def repository() -> Iterator[Case]:
    index, load = "/v2/repository/index", "/v2/repository/models"
    for name, body in (
        ("all", b""),
        ("object", {}),
        ("ready", {"ready": True}),
        ("not-ready", {"ready": False}),
    ):
        yield Case(
            f"http/index/{name}", lambda peer, b=body: [peer.ask("POST", index, b, view=_index)]
        )
    for name, body in (("array", b"[]"), ("noise", b"{"), ("ready-text", {"ready": "x"})):
        yield ask(f"index/{name}", "POST", index, body)
    data = base64.b64encode(b"x").decode()
    for name, model, body in (
        ("good", "stacked", b""), ("object", "stacked", {}), ("unknown", "nobody", b""),
        ("broken", "broken", b""), ("nul", "stacked%00", b""), ("dots", "..", b""),
        ("blank", "%20", b""),
        ("array", "stacked", b"[]"), ("noise", "stacked", b"{"),
        ("parameters-list", "stacked", {"parameters": []}),
        ("parameters-null", "stacked", {"parameters": None}),
        ("parameter-unknown", "stacked", {"parameters": {"x": "y"}}),
        ("config-no-json", "stacked", {"parameters": {"config": "{"}}),
        ("config-number", "stacked", {"parameters": {"config": 1}}),
        ("config-unknown-field", "stacked", {"parameters": {"config": '{"nothing": 1}'}}),
        ("file", "stacked", {"parameters": {"file:1/model.py": data}}),
    ):  # fmt: skip
        yield ask(f"load/{name}", "POST", f"{load}/{model}/load", body)
    for name, model, body in (
        ("unknown", "nobody", b""), ("dots", "..", b""), ("nul", "stacked%00", b""),
        ("good", "stacked", b""),
        ("again", "stacked", b""),
        ("dependents", "stacked", {"parameters": {"unload_dependents": True}}),
        ("dependents-text", "stacked", {"parameters": {"unload_dependents": "x"}}),
        ("array", "stacked", b"[]"), ("noise", "stacked", b"{"),
    ):  # fmt: skip
        yield ask(f"unload/{name}", "POST", f"{load}/{model}/unload", body)
    yield ask("load/afterwards", "POST", f"{load}/stacked/load")


def extensions() -> Iterator[Case]:
    for kind in ("system", "cuda"):
        base = f"/v2/{kind}sharedmemory"
        key = (
            {"key": "/nobody"}
            if kind == "system"
            else {"raw_handle": {"b64": "AAAA"}, "device_id": 0}
        )
        for name, method, path, body in (
            ("status", "GET", "/status", b""), ("status-unknown", "GET", "/region/r/status", b""),
            ("status-post", "POST", "/status", b""), ("unregister", "POST", "/unregister", b""),
            ("unregister-unknown", "POST", "/region/r/unregister", b""),
            ("register", "POST", "/region/r/register", {**key, "byte_size": 64}),
            ("register-no-body", "POST", "/region/r/register", b""),
            ("register-no-size", "POST", "/region/r/register", key),
            ("register-size-text", "POST", "/region/r/register", {**key, "byte_size": "x"}),
        ):  # fmt: skip
            yield ask(f"memory/{kind}/{name}", method, base + path, body)

    def keys(found: Any) -> Any:
        return sorted(found)

    for name, path, body in (
        ("log/read", "/v2/logging", None), ("log/verbose", "/v2/logging", {"log_verbose_level": 1}),
        ("log/verbose-off", "/v2/logging", {"log_verbose_level": 0}),
        ("log/wrong-kind", "/v2/logging", {"log_info": "yes"}),
        ("log/unknown", "/v2/logging", {"x": True}),
        ("log/file", "/v2/logging", {"log_file": "/nowhere/x"}), ("log/array", "/v2/logging", []),
        ("trace/read", "/v2/trace/setting", None),
        ("trace/read-model", "/v2/models/simple/trace/setting", None),
        ("trace/read-unknown", "/v2/models/nobody/trace/setting", None),
        ("trace/off", "/v2/trace/setting", {"trace_level": ["OFF"]}),
        ("trace/clear", "/v2/trace/setting", {"trace_level": None}),
        ("trace/unknown", "/v2/trace/setting", {"x": "1"}),
        ("trace/file", "/v2/trace/setting", {"trace_file": "/nowhere/x"}),
        ("trace/rate-text", "/v2/trace/setting", {"trace_rate": "x"}),
        ("trace/array", "/v2/trace/setting", []),
    ):  # fmt: skip
        method, sent = ("GET", b"") if body is None else ("POST", body)
        yield Case(
            f"http/{name}", lambda peer, m=method, p=path, b=sent: [peer.ask(m, p, b, view=keys)]
        )


def cases() -> list[Case]:
    """All of them; what changes the server comes last."""
    parts = (
        binary,
        compression,
        bodies,
        parameters,
        sequences,
        decoupled,
        paths,
        extensions,
        repository,
    )
    per_dtype = [case for dtype in DTYPES for case in of_dtype(dtype)]
    return [*per_dtype, *(case for part in parts for case in part())]
