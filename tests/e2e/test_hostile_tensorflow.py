"""The list of hostile inputs, over TensorFlow Serving's gRPC and REST, by the list's row numbers.

What happens below the protocols (frames, slow clients, framing of HTTP) is in the other files: the
same hosts carry all of them. No row waits for a capability that is still to come: ensembles,
archives and configuration by request have no path in.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import time
import urllib.parse
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from crossfade.serving.wire import tf_framework as framework
from crossfade.serving.wire import tf_serving as wire
from tests.e2e.hostile import ADDEND, SLOW_MS, Target, assert_clean, bomb, target

PREDICTION = "/tensorflow.serving.PredictionService/"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RAW = ADDEND.tobytes()
RTL = "\u202esimple"
LONG = "n" * 100_000
FLOAT, INT32, STRING = framework.DT_FLOAT, framework.DT_INT32, framework.DT_STRING
PATH = "/v1/models/simple:predict"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("hostile")) as started:
        yield started


def case(row: int, name: str, *values: Any) -> Any:
    return pytest.param(*values, id=f"row{row:02}-{name}")


@contextlib.contextmanager
def survives(attacked: Target) -> Iterator[None]:
    """As ``Target.survives``, and good requests of this protocol are answered, too."""
    with attacked.survives():
        yield
        code, text, data = attacked.call(PREDICTION + "Predict", simple(), 5)
        assert code is grpc.StatusCode.OK, text
        outputs = wire.PredictResponse.FromString(data).outputs
        assert list(outputs["OUTPUT0"].int_val) == (ADDEND * 2).tolist()
        reply = attacked.post(PATH, columns())
        assert json.loads(reply.body)["outputs"]["OUTPUT1"] == [[0] * 16]


def fill(tensor: Any, dtype: int, shape: Sequence[int], **fields: Any) -> None:
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    for name, content in fields.items():
        if isinstance(content, list):
            getattr(tensor, name).extend(content)
        else:
            setattr(tensor, name, content)


def one(
    model: str, name: str, dtype: int, shape: Sequence[int], request: Any = None, **fields: Any
) -> Any:
    """A request with one input more."""
    made = request or wire.PredictRequest()
    made.model_spec.name = model
    fill(made.inputs[name], dtype, shape, **fields)
    return made


def simple(shape: Sequence[int] = (1, 16), dtype: int = INT32, **fields: Any) -> Any:
    """A good request for ``simple``, or one whose second input is another."""
    made = one("simple", "INPUT0", INT32, [1, 16], tensor_content=RAW)
    return one("simple", "INPUT1", dtype, shape, made, **(fields or {"tensor_content": RAW}))


def named(*names: str) -> Any:
    made = wire.PredictRequest()
    made.model_spec.name = "simple"
    for name in names:
        fill(made.inputs[name], INT32, [1, 16], tensor_content=RAW)
    return made


def filtered(*names: str) -> Any:
    made = simple()
    made.output_filter.extend(names)
    return made


def version(number: int) -> Any:
    made = simple()
    made.model_spec.version.value = number
    return made


def unknown_rank() -> Any:
    made = simple()
    made.inputs["INPUT1"].tensor_shape.unknown_rank = True
    return made


def both() -> bytes:
    """A version and a label, which only bytes can say at once."""
    label = simple()
    label.model_spec.version_label = "stable"
    return bytes(version(1).SerializeToString() + label.SerializeToString())


WRONG = [
    case(1, "shape-32-bytes-16", simple([2, 16]), "Expected 128, got 64"),
    case(1, "bytes-32-shape-16", simple(tensor_content=RAW * 2), "Expected 64, got 128"),
    case(2, "negative-batch", simple([-1, 16]), "dimension of -1"),
    case(2, "two-negatives", simple([-1, -16]), "dimension of -1"),
    case(2, "least-int64", simple([-(2**63), 16]), "dimension of -"),
    case(3, "huge", simple([2**40, 16]), "exceeds the maximum"),
    case(3, "huge-of-one-value", simple([2**40, 16], int_val=[1]), "one value for|exceeds"),
    case(3, "huge-any", one("any", "x", FLOAT, [2**40], tensor_content=bytes(64)), "exceeds"),
    case(4, "2^62x4", simple([2**62, 4], tensor_content=b""), "exceeds|no values"),
    case(4, "2^33x2^31", simple([2**33, 2**31]), "exceeds the maximum"),
    case(4, "2^32x2^32", simple([2**32, 2**32], int_val=[7]), "one value for|exceeds"),
    case(5, "zero-batch", simple([0, 16], tensor_content=b""), "no values|dimension of 0"),
    case(5, "zero-dim", simple([1, 0], int_val=[1]), "must be positive"),
    case(5, "scalar", simple([], int_val=[1]), "unexpected shape"),
    case(6, "batch-9-of-8", simple([9, 16], int_val=[1]), "batch-size must be <= 8|batch size"),
    case(6, "two-batch-sizes", simple([2, 16], tensor_content=RAW * 2), "batch size"),
    case(7, "one-byte-less", simple(tensor_content=RAW[:-1]), "Expected 64, got 63"),
    case(7, "one-byte-more", simple(tensor_content=RAW + b"\0"), "Expected 64, got 65"),
    case(7, "empty", simple(tensor_content=b""), "no values"),
    case(10, "wrong-dtype", simple(dtype=FLOAT), "data-type"),
    case(10, "unknown-dtype", simple(dtype=99), "data type 99"),
    case(10, "no-dtype", simple(dtype=0), "DT_INVALID"),
    case(10, "reference", simple(dtype=103), "DT_INT32_REF|data type 103"),
    case(11, "missing", named("INPUT0"), "Missing but required: {INPUT1}"),
    case(11, "none", named(), "Missing but required: {INPUT0,INPUT1}"),
    case(11, "unknown", named("INPUT0", "INPUT1", "INPUT2"), "Sent extra: {INPUT2}"),
    case(11, "nul", named("INPUT0", "INPUT1\0"), r"INPUT1\\x00"),
    case(11, "control", named("INPUT0", "a\x1b[2J\n" + RTL), r"a\\x1b\[2J\\n\\u202e"),
    case(11, "long", named("INPUT0", LONG), "Sent extra"),
    case(11, "no-name", named("INPUT0", ""), "Sent extra: {}"),
    case(12, "unknown-output", filtered("OUTPUT9"), "alias not found in signature: OUTPUT9"),
    case(12, "duplicate-output", filtered("OUTPUT0", "OUTPUT0"), "duplicate output"),
    case(12, "control-in-output", filtered("\r\n" + RTL), r"\\r\\n\\u202e"),
    case(12, "long-output", filtered(LONG), "alias not found"),
    case(17, "both", simple(tensor_content=RAW, int_val=[1] * 16), "and nothing else"),
    case(18, "short", simple(int_val=[1] * 15), "element size mismatch"),
    case(18, "long", simple(int_val=[1] * 17), "element size mismatch"),
    case(18, "wrong-field", simple(float_val=[1.0] * 16), "DT_INT32 with float_val"),
    case(18, "two-fields", simple(int_val=[1] * 16, int64_val=[1]), "and nothing else"),
    case(18, "overflow", one("tiny", "x", 6, [1, 2], int_val=[1, 128]), "cannot hold"),
    case(19, "text-less", one("text", "x", STRING, [2, 2], string_val=[b"a"] * 3), "size"),
    case(19, "text-more", one("text", "x", STRING, [1, 2], string_val=[b"a"] * 3), "size"),
    case(19, "text-raw", one("text", "x", STRING, [1, 2], tensor_content=RAW), "DT_STRING"),
    case(41, "bad-filter", filtered("nothing"), "alias not found"),
    case(41, "version-and-label", both(), "both a version and a version label"),
    case(42, "dtype-and-payload", simple(double_val=[1.0] * 16), "DT_INT32 with double_val"),
    case(42, "content-short", simple(tensor_content=b"\0"), "Expected 64, got 1"),
    case(42, "unknown-rank", unknown_rank(), "unknown rank"),
    case(42, "million-dims", simple([1] * 10**6), "too many dimensions|exceeds"),
    case(42, "resource", simple(dtype=20), "DT_RESOURCE"),
    case(42, "variant", simple(dtype=21), "DT_VARIANT"),
    case(42, "complex", simple(dtype=8, scomplex_val=[1.0, 2.0]), "DT_COMPLEX64"),
    case(42, "quantised", simple(dtype=11), "DT_QINT8"),
]


@pytest.mark.parametrize(("request_", "says"), WRONG)
def test_wrong_request(attacked: Target, request_: Any, says: str) -> None:
    with survives(attacked):
        began_s = time.monotonic()
        attacked.refused(request_, "INVALID_ARGUMENT", says, method=PREDICTION + "Predict")
        assert time.monotonic() - began_s < 2


NAMES = [
    case(13, "unknown", "nobody", "NOT_FOUND"),
    case(13, "empty", "", "INVALID_ARGUMENT"),
    case(13, "long", LONG, "NOT_FOUND"),
    case(14, "parents", "../../etc/passwd", "NOT_FOUND"),
    case(14, "encoded", "..%2fsimple", "NOT_FOUND"),
    case(14, "right-to-left", RTL, "NOT_FOUND"),
    case(14, "escape-codes", "\x1b[31msimple", "NOT_FOUND|INVALID_ARGUMENT"),
    case(15, "nul", "simple\0evil", "NOT_FOUND|INVALID_ARGUMENT"),
]


@pytest.mark.parametrize(("name", "code"), NAMES)
def test_unknown_name(attacked: Target, name: str, code: str) -> None:
    predict, status = simple(), wire.GetModelStatusRequest()
    metadata = wire.GetModelMetadataRequest(metadata_field=["signature_def"])
    classify = wire.ClassificationRequest()
    classify.input.example_list.examples.add()
    with survives(attacked):
        for method, message in (
            (PREDICTION + "Predict", predict),
            (PREDICTION + "Classify", classify),
            (PREDICTION + "GetModelMetadata", metadata),
            (STATUS, status),
        ):
            message.model_spec.name = name
            got, text, _ = attacked.call(method, message)
            assert got.name in code.split("|"), (method, text)
            assert_clean(text, [name] if name else [])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        case(16, "7", version(7), "NOT_FOUND"),
        case(16, "negative", version(-5), "NOT_FOUND"),
        case(16, "2^63-1", version(2**63 - 1), "NOT_FOUND"),
        case(41, "signature", simple(), "FAILED_PRECONDITION"),
    ],
)
def test_what_is_not_there(attacked: Target, request_: Any, code: str) -> None:
    if code == "FAILED_PRECONDITION":
        request_.model_spec.signature_name = "wrong"
    with survives(attacked):
        attacked.refused(request_, code, method=PREDICTION + "Predict")


def slow() -> Any:
    return one("slow", "x", FLOAT, [2], float_val=[1.0, 2.0])


@pytest.mark.parametrize("timeout_s", [0.0, 0.001, 0.05])
def test_row23_deadline(attacked: Target, timeout_s: float) -> None:
    with survives(attacked):
        before = attacked.successes("slow")
        predict = attacked.channel.unary_unary(PREDICTION + "Predict")
        running = predict.future(slow().SerializeToString())
        time.sleep(SLOW_MS / 3000)
        began_s = time.monotonic()
        got = attacked.call(PREDICTION + "Predict", slow(), timeout_s)[0]
        assert got is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began_s < SLOW_MS / 1500
        running.result(20)
        assert attacked.successes("slow") == before + 1


def test_row24_cancel_in_the_queue(attacked: Target) -> None:
    predict = attacked.channel.unary_unary(PREDICTION + "Predict")
    with survives(attacked):
        before = attacked.successes("slow")
        running = predict.future(slow().SerializeToString())
        time.sleep(SLOW_MS / 3000)
        waiting = [predict.future(slow().SerializeToString()) for _ in range(20)]
        time.sleep(0.05)
        for call in waiting:
            call.cancel()
        assert {call.code() for call in waiting} == {grpc.StatusCode.CANCELLED}
        running.result(20)
        assert attacked.call(PREDICTION + "Predict", slow())[0] is grpc.StatusCode.OK
        assert attacked.successes("slow") == before + 2


GOOD = simple().SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        case(26, "noise", bytes(range(255, 0, -1))),
        case(26, "much-noise", np.random.default_rng(0).bytes(1_000_000)),
        case(26, "cut", GOOD[:-5]),
        case(26, "bad-utf-8", b"\x0a\x06\x0a\x04\xff\xfe\xfd\xfc"),
        case(26, "deep-groups", b"\x7b" * 100_000),
        case(26, "empty-inputs", b"\x12\x00" * 2_000_000),
        case(26, "empty-filters", b"\x1a\x00" * 2_000_000),
        case(26, "nothing", b""),
    ],
)
@pytest.mark.parametrize(
    "method", ["Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"]
)
def test_garbage(attacked: Target, method: str, message: bytes) -> None:
    with survives(attacked):
        attacked.refused(message, "INVALID_ARGUMENT", method=PREDICTION + method)


def test_row37_a_message_over_the_limit(attacked: Target) -> None:
    request = simple(tensor_content=bytes(64 * 2**20))
    with survives(attacked):
        attacked.refused(
            request, "RESOURCE_EXHAUSTED", "larger than max", method=PREDICTION + "Predict"
        )


@pytest.mark.parametrize(
    "method",
    [
        case(39, "session", "/tensorflow.serving.SessionService/SessionRun"),
        case(39, "streamed", PREDICTION + "PredictStreamed"),
        case(39, "case", PREDICTION + "predict"),
        case(39, "none", PREDICTION),
    ],
)
def test_unknown_rpc(attacked: Target, method: str) -> None:
    with survives(attacked):
        attacked.refused(GOOD, "UNIMPLEMENTED", method=method)


def test_row40_configuration_by_request(attacked: Target) -> None:
    request = b"\x0a\x0c\x0a\x0a\x0a\x08\x12\x06/etc/x"  # config { … base_path: "/etc/x" }
    method = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    with survives(attacked):
        attacked.refused(request, "FAILED_PRECONDITION", "model repository", method=method)


# REST.


def columns(**fields: Any) -> dict[str, Any]:
    """A good body for ``simple``, or one with other inputs."""
    return {"inputs": {"INPUT0": [list(range(16))], "INPUT1": [list(range(16))], **fields}}


def second(value: Any) -> dict[str, Any]:
    return columns(INPUT1=value)


def literal(text: str) -> bytes:
    """The good body with this text as its second input."""
    return json.dumps(second("@")).replace('"@"', text).encode()


ROW = list(range(16))
BODIES = [
    case(1, "two-rows-and-one", second([ROW, ROW]), "batch size"),
    case(2, "negative-shape", {"inputs": {"INPUT0": {"shape": [-1]}, "INPUT1": [ROW]}}, ""),
    case(5, "no-rows", second([]), ""),
    case(5, "empty-row", second([[]]), ""),
    case(5, "scalar", second(1), ""),
    case(6, "batch-9-of-8", columns(INPUT0=[ROW] * 9, INPUT1=[ROW] * 9), "<= 8"),
    case(7, "one-less", second([ROW[:-1]]), "unexpected shape"),
    case(7, "one-more", second([[*ROW, 1]]), "unexpected shape"),
    case(10, "text", second([["a"] * 16]), "not INT32"),
    case(11, "missing", {"inputs": {"INPUT0": [ROW]}}, "Missing but required"),
    case(11, "unknown", columns(INPUT2=[ROW]), "Sent extra: {INPUT2}"),
    case(11, "control", columns(**{"\x1b[2J\r\n" + RTL: [ROW]}), r"\\x1b\[2J\\r\\n\\u202e"),
    case(11, "long", columns(**{LONG: [ROW]}), "Sent extra"),
    case(18, "object", second({"a": 1}), ""),
    case(18, "null", second(None), ""),
    case(19, "bytes-for-numbers", second([{"b64": "AAAA"}] * 16), ""),
    case(27, "truncated", json.dumps(columns()).encode()[:-1], "not valid JSON"),
    case(27, "array", b"[]", "must be a JSON object"),
    case(27, "null-body", b"null", "must be a JSON object"),
    case(27, "empty-object", b"{}", "not both"),
    case(27, "nothing", b"", "not valid JSON"),
    case(27, "noise", bytes(range(256)), "not valid JSON"),
    case(27, "bad-utf-8", b'{"inputs": "\xff\xfe"}', "not valid JSON"),
    case(27, "many-objects", b'{"instances": [' + b"{}," * 10**6 + b"{}]}", "objects and keys"),
    case(27, "many-lists", b'{"instances": [' + b"[]," * 2 * 10**6 + b"[]]}", "JSON lists"),
    case(28, "nan-for-int", literal("[[" + "NaN," * 15 + "NaN]]"), "not INT32"),
    case(28, "1e999", literal("[[" + "1e999," * 15 + "1]]"), ""),
    case(28, "2^40", second([[2**40] * 16]), "cannot hold"),
    case(28, "10^400", literal(f"[[1{'0' * 400}]]"), ""),
    case(28, "float", second([[1.5] * 16]), "not INT32"),
    case(28, "bool", second([[True] * 16]), "not INT32"),
    case(28, "ragged", second([ROW, [1]]), "lengths"),
    case(29, "deep", b'{"inputs": ' + b"[" * 100_000, r"\(100\)"),
    case(29, "deep-objects", b'{"a":' * 100_000, r"\(100\)"),
    case(29, "duplicate", b'{"inputs": {}, "inputs": {}}', "stands twice"),
    case(29, "duplicate-inner", literal('[1], "INPUT1": [2]'), "stands twice"),
    case(41, "both-forms", {**columns(), "instances": [1]}, "not both"),
    case(41, "signature", {**columns(), "signature_name": "no"}, "not found"),
    case(41, "signature-number", {**columns(), "signature_name": 7}, "must be a string"),
]


def clean(reply: Any, path: str = "") -> str:
    text = str(reply.error)
    assert_clean(text.replace("tensorflow/serving/", ""), [path] if path else [])
    return text


@pytest.mark.parametrize(("body", "says"), BODIES)
def test_wrong_body(attacked: Target, body: Any, says: str) -> None:
    with survives(attacked):
        began_s = time.monotonic()
        reply = attacked.post(PATH, body)
        assert reply.status == 400
        assert time.monotonic() - began_s < 3
        text = clean(reply).encode("unicode_escape").decode()
        assert not says or says.replace("\\", "") in text.replace("\\", ""), text


@pytest.mark.parametrize("value", ["?", "A" * 101, "é", "AAAA\n", " AAAA"])
def test_row41_base64(attacked: Target, value: str) -> None:
    with survives(attacked):
        body = {"inputs": [[{"b64": value}, {"b64": value}]]}
        reply = attacked.post("/v1/models/text:predict", body)
        assert reply.status == 400
        assert "base64" in clean(reply)


PATHS = [
    case(13, "unknown", "nobody:predict", 404),
    case(13, "empty", ":predict", 400),
    case(13, "long", f"{LONG[:500]}:predict", 404),
    case(14, "parents", "../../etc/passwd:predict", 400),
    case(14, "encoded", "..%2f..%2fetc:predict", 400),
    case(14, "right-to-left", "%e2%80%aesimple:predict", 404),
    case(15, "nul", "simple%00evil:predict", 400),
    case(16, "version-parents", "simple/versions/../1:predict", 400),
    case(16, "version-negative", "simple/versions/-5:predict", 400),
    case(16, "version-7", "simple/versions/7:predict", 404),
    case(16, "version-2^70", f"simple/versions/{2**70}:predict", 400),
    case(36, "unknown-verb", "simple:explode", 400),
    case(36, "no-verb", "simple:", 400),
    case(41, "version-and-label", "simple/versions/1/labels/a:predict", 400),
    case(41, "label", "simple/labels/no:predict", 400),
]


@pytest.mark.parametrize(("name", "status"), PATHS)
def test_wrong_path(attacked: Target, name: str, status: int) -> None:
    path = f"/v1/models/{name}"
    with survives(attacked):
        reply = attacked.post(path, columns())
        assert reply.status == status, reply.body
        clean(reply, urllib.parse.unquote(path))


@pytest.mark.parametrize("method", ["DELETE", "PUT", "TRACE"])
def test_row36_methods(attacked: Target, method: str) -> None:
    with survives(attacked):
        assert attacked.ask(method, PATH).status == 405


PACKED = json.dumps(columns()).encode()


@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        case(32, "gzip", gzip.compress(PACKED), "gzip", 200),
        case(32, "deflate", zlib.compress(PACKED), "deflate", 200),
        case(32, "corrupt", gzip.compress(PACKED)[:-9], "gzip", 400),
        case(32, "br", PACKED, "br", 415),
        case(32, "bomb", bomb("gzip", 2**30, b" "), "gzip", 413),
        case(33, "too-large", b" " * (64 * 2**20 + 1), "identity", 413),
    ],
)
def test_body(attacked: Target, body: bytes, coding: str, status: int) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    with survives(attacked):
        reply = attacked.send(f"{head}Content-Encoding: {coding}\r\n\r\n".encode() + body)
        assert reply.status == status, reply.body


@pytest.mark.parametrize(
    "lines",
    [
        case(34, "two-lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        case(34, "negative-length", "Content-Length: -1\r\n\r\n{}"),
        case(34, "both", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"),
        case(34, "chunk-2^64", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"),
    ],
)
def test_framing(attacked: Target, lines: str) -> None:
    with survives(attacked):
        reply = attacked.send(f"POST {PATH} HTTP/1.1\r\nHost: a\r\n{lines}".encode())
        assert reply.status == 400
