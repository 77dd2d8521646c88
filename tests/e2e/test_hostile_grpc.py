"""The list of hostile inputs, over gRPC: rows 1 to 26, 37 and 39, by the list's row numbers.

Row 38, which is about frames, is in ``test_hostile_frames``.
"""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.hostile import (
    ADDEND,
    SERVICE,
    SLOW_MS,
    Target,
    assert_clean,
    simple,
    single,
    target,
    tensor,
    tree,
)

RAW = ADDEND.tobytes()
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
RTL = "\u202esimple"
LONG = "n" * 100_000
Parameter = pb.InferParameter
Output = pb.ModelInferRequest.InferRequestedOutputTensor


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("hostile")) as started:
        yield started


def case(row: int, name: str, *values: Any) -> Any:
    return pytest.param(*values, id=f"row{row:02}-{name}")


def second(**fields: Any) -> Any:
    """The good request with fields of its second input changed."""
    request = simple()
    for name, what in fields.items():
        setattr(request.inputs[1], name, what)
    return request


def renamed(*names: str) -> Any:
    """A request with good tensors under these names."""
    inputs = [tensor(name, "INT32", (1, 16)) for name in names]
    return pb.ModelInferRequest(
        model_name="simple", inputs=inputs, raw_input_contents=[RAW] * len(names)
    )


def two_batches() -> Any:
    request = simple(raws=[RAW * 2, RAW])
    request.inputs[0].shape[0] = 2
    return request


def contents(request: Any, **fields: Sequence[Any]) -> Any:
    """The request with typed values in its last input."""
    request.inputs[-1].contents.SetInParent()
    for name, values in fields.items():
        getattr(request.inputs[-1].contents, name).extend(values)
    return request


def asking(**parameters: Parameter) -> Any:
    request = simple()
    for name, choice in parameters.items():
        request.parameters[name].CopyFrom(choice)
    return request


def of_tensors(**parameters: Parameter) -> Any:
    request = simple()
    for name, choice in parameters.items():
        request.inputs[0].parameters[name].CopyFrom(choice)
    return request


def wanting(*names: str, of: Any = None, **parameters: Parameter) -> Any:
    request = of or simple()
    request.outputs.extend(Output(name=name, parameters=parameters) for name in names)
    return request


def classes(count: Parameter) -> Any:
    scores = single("scores", "FP32", [1, 4], np.float32([1, 4, 2, 3]).tobytes())
    return wanting("x", of=scores, classification=count)


def number(value: int) -> Parameter:
    return Parameter(int64_param=value)


def text(value: str) -> Parameter:
    return Parameter(string_param=value)


def elements(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def words(raw: bytes) -> Any:
    """A request for two strings."""
    return single("text", "BYTES", [1, 2], raw)


WRONG = [
    case(1, "shape-32-bytes-16", simple(2, 16), "Expected 128, got 64"),
    case(1, "bytes-32-shape-16", simple(raws=[RAW, RAW + RAW]), "Expected 64, got 128"),
    case(2, "negative-batch", simple(-1, 16), "dimension of -1"),
    case(2, "negative-inner", simple(1, -16), "dimension of -16"),
    case(2, "two-negatives", simple(-1, -16), "dimension of -1"),
    case(2, "least-int64", simple(-(2**63), 16), "dimension of -9223372036854775808"),
    case(2, "negative-any", single("any", "FP32", [-1, -1], bytes(4)), "dimension of -1"),
    case(3, "huge-batch", simple(2**40, 16), "exceeds the maximum"),
    case(3, "huge-inner", simple(1, 2**40), "exceeds the maximum"),
    case(3, "huge-any", single("any", "FP32", [2**40], bytes(64)), "exceeds the maximum"),
    case(3, "huge-text", single("text", "BYTES", [2**29, 2], bytes(64)), "need at least"),
    case(4, "2^62x4", simple(2**62, 4, raws=[b"", b""]), "exceeds the maximum"),
    case(4, "2^33x2^31", simple(2**33, 2**31, raws=[b"", b""]), "exceeds the maximum"),
    case(4, "2^32x2^32", single("any", "FP32", [2**32, 2**32], b""), "exceeds the maximum"),
    case(4, "2^61x8", single("any", "FP32", [2**61, 8], b""), "exceeds the maximum"),
    case(4, "2^30-floats", single("any", "FP32", [2**30], b""), "Expected 4294967296, got 0"),
    case(4, "a-million-dims", single("any", "FP32", [2**62] * 10**6, b""), "32 dimensions"),
    case(4, "a-million-ones", single("any", "FP32", [1] * 10**6, bytes(4)), "32 dimensions"),
    case(4, "33-ones", single("any", "FP32", [1] * 33, bytes(4)), "32 dimensions"),
    case(5, "zero-batch", simple(0, 16, raws=[b"", b""]), "dimension of 0"),
    case(5, "zero-dim", simple(1, 0, raws=[b"", b""]), "dimension of 0"),
    case(5, "zero-any", single("any", "FP32", [0], b""), "dimension of 0"),
    case(5, "huge-times-zero", single("any", "FP32", [2**62, 0], b""), "dimension of 0|maximum"),
    case(6, "batch-9-of-8", simple(9, 16, raws=[RAW * 9] * 2), "batch-size must be <= 8"),
    case(6, "two-batch-sizes", two_batches(), "batch size does not match"),
    case(7, "one-byte-less", simple(raws=[RAW, RAW[:-1]]), "Expected 64, got 63"),
    case(7, "one-byte-more", simple(raws=[RAW, RAW + b"\0"]), "Expected 64, got 65"),
    case(7, "empty-raw", simple(raws=[RAW, b""]), "Expected 64, got 0"),
    case(8, "one-raw", simple(raws=[RAW]), "expected 2 raw input contents.*got 1"),
    case(9, "three-raws", simple(raws=[RAW] * 3), "expected 2 raw input contents.*got 3"),
    case(9, "an-empty-one-more", simple(raws=[RAW, RAW, b""]), "got 3"),
    case(
        9,
        "raws-without-inputs",
        pb.ModelInferRequest(model_name="simple", raw_input_contents=[RAW]),
        "expected 0",
    ),
    case(10, "unknown-dtype", second(datatype="FLOAT128"), "data-type is 'FLOAT128'"),
    case(10, "empty-dtype", second(datatype=""), "data-type is ''"),
    case(10, "lower-case", second(datatype="int32"), "data-type is 'int32'"),
    case(10, "wrong-dtype", second(datatype="FP32"), "expects 'INT32'"),
    case(10, "nul-in-dtype", second(datatype="INT32\0"), r"'INT32\\x00'"),
    case(10, "control-in-dtype", second(datatype="\x1b[2J\r\n" + RTL), r"\\x1b\[2J\\r\\n\\u202e"),
    case(10, "long-dtype", second(datatype=LONG), "expects 'INT32'"),
    case(10, "typed-dtype", contents(single("any", RTL + "\r", [1])), "is not a data-type"),
    case(11, "missing", renamed("INPUT0"), r"missing required input\(s\) \['INPUT1'\]"),
    case(11, "none", renamed(), "missing required"),
    case(
        11, "unknown", renamed("INPUT0", "INPUT1", "INPUT2"), "unexpected inference input 'INPUT2'"
    ),
    case(11, "duplicate", renamed("INPUT0", "INPUT0"), "already exists in request"),
    case(11, "empty-name", renamed("INPUT0", ""), "unexpected inference input ''"),
    case(11, "nul-in-name", renamed("INPUT0", "INPUT1\0"), r"'INPUT1\\x00'"),
    case(11, "control-in-name", renamed("INPUT0", "a\x1b[2J\n" + RTL), r"a\\x1b\[2J\\n\\u202e"),
    case(11, "long-name", renamed("INPUT0", LONG), "unexpected inference input"),
    case(12, "unknown-output", wanting("OUTPUT9"), "unexpected inference output 'OUTPUT9'"),
    case(12, "duplicate-output", wanting("OUTPUT0", "OUTPUT0"), "requested more than once"),
    case(12, "empty-output", wanting(""), "unexpected inference output ''"),
    case(12, "control-in-output", wanting("\r\n" + RTL), r"'\\r\\n\\u202e"),
    case(12, "long-output", wanting(LONG), "unexpected inference output"),
    case(13, "empty-model", simple(model_name=""), "names no model"),
    case(13, "blank-model", simple(model_name=" \u3000"), "names no model"),
    case(15, "nul-in-model", simple(model_name="simple\0evil"), r"simple\\x00evil"),
    case(15, "nul-only", simple(model_name="\0"), r"\\x00"),
    case(15, "newline", simple(model_name="simple\r\nX: y"), r"simple\\r\\nX: y"),
    *[
        case(16, f"version-{version[:12]!a}", simple(model_version=version), "specified version")
        for version in (
            "../1",
            "-5",
            str(2**70),
            "0",
            "1 ",
            "+1",
            "1.0",
            "1e0",
            "0x1",
            "1\0",
            "\uff11",
            RTL,
            LONG,
        )
    ],
    case(17, "raw-and-contents", contents(simple(), int_contents=[1] * 16), "contents field must"),
    case(17, "raw-and-empty-contents", contents(simple()), "contents field must not"),
    case(18, "short", contents(simple(raws=[]), int_contents=[1] * 15), "element size mismatch"),
    case(18, "wrong-field", contents(simple(raws=[]), fp32_contents=[1] * 16), "has fp32_contents"),
    case(
        18,
        "two-fields",
        contents(single("long", "INT64", [1, 2]), int64_contents=[1, 2], int_contents=[1]),
        "has int_contents",
    ),
    case(18, "none", simple(raws=[]), "element size mismatch"),
    case(
        18,
        "half",
        contents(single("half", "FP16", [1, 2]), fp32_contents=[1, 2]),
        "must be sent raw",
    ),
    case(
        18,
        "overflow",
        contents(single("tiny", "INT8", [1, 2]), int_contents=[1, 128]),
        "INT8 cannot hold",
    ),
    case(
        18,
        "text-short",
        contents(single("text", "BYTES", [1, 2]), bytes_contents=[b"a"]),
        "element size mismatch",
    ),
    case(
        19,
        "length-2^32-1",
        words(b"\xff" * 4 + b"abc" + bytes(4)),
        "4294967295 bytes, but 7 are left",
    ),
    case(19, "cut-length", words(elements(b"ab") + b"\1\0"), "need at least 8|elements due"),
    case(19, "cut-length-later", words(elements(b"abcdefgh") + b"\1\0"), "2 elements due"),
    case(19, "one-less", words(elements(b"abcdefgh")), "2 elements due"),
    case(19, "one-more", words(elements(b"a", b"b", b"c")), "5 bytes after its last element"),
    case(19, "nothing", words(b""), "need at least"),
    case(20, "priority-bool", asking(priority=Parameter(bool_param=True)), "'priority' must be"),
    case(20, "priority-text", asking(priority=text("1")), "'priority' must be"),
    case(20, "priority-double", asking(priority=Parameter(double_param=1)), "'priority' must be"),
    case(20, "priority-negative", asking(priority=number(-1)), "'priority' must be"),
    case(20, "priority-2^64-1", asking(priority=Parameter(uint64_param=2**64 - 1)), "'priority'"),
    case(20, "timeout-negative", asking(timeout=number(-1)), "'timeout' must be"),
    case(20, "timeout-2^64-1", asking(timeout=Parameter(uint64_param=2**64 - 1)), "'timeout'"),
    case(20, "reserved", asking(triton_x=number(1)), "reserved"),
    case(20, "reserved-control", asking(**{"triton_\r\n" + RTL + LONG: number(1)}), "reserved"),
    case(20, "no-value", asking(priority=Parameter()), "'priority' has no value"),
    case(20, "no-value-control", asking(**{"\r\n" + RTL + LONG: Parameter()}), "has no value"),
    case(20, "input-no-value", of_tensors(anything=Parameter()), "has no value"),
    case(20, "output-no-value", wanting("OUTPUT0", anything=Parameter()), "has no value"),
    case(21, "zero", classes(number(0)), "'classification' must be a positive integer"),
    case(21, "negative", classes(number(-1)), "'classification' must be"),
    case(21, "2^62", classes(number(2**62)), "'classification' must be"),
    case(21, "2^31", classes(number(2**31)), "'classification' must be"),
    case(21, "bool", classes(Parameter(bool_param=True)), "'classification' must be"),
    case(21, "text", classes(text("1")), "'classification' must be"),
    case(
        21,
        "of-text",
        wanting("x", of=words(elements(b"a", b"b")), classification=number(1)),
        "numeric",
    ),
]


@pytest.mark.parametrize(("request_", "says"), WRONG)
def test_wrong_request(attacked: Target, request_: Any, says: str) -> None:
    with attacked.survives():
        began_s = time.monotonic()
        sent = [own for own in (request_.model_name, request_.model_version) if own]
        attacked.refused(request_, "INVALID_ARGUMENT", says, sent=sent)
        assert time.monotonic() - began_s < 2


def test_row05_a_scalar_where_rows_are_due(attacked: Target) -> None:
    request = simple()
    del request.inputs[0].shape[:]
    with attacked.survives():
        attacked.refused(request, says=r"unexpected shape.*got \[\]")


@pytest.mark.parametrize(
    "amount", [case(20, "timeout-2^62", 2**62), case(20, "timeout-2^63-1", 2**63 - 1)]
)
def test_endless_timeout(attacked: Target, amount: int) -> None:
    with attacked.survives():
        attacked.infer(asking(timeout=number(amount)))


NAMES = [
    case(13, "unknown", "nobody", "NOT_FOUND", "unknown model: 'nobody'"),
    case(13, "long", LONG, "NOT_FOUND", "n{128}'"),
    case(14, "parents", "../../etc/passwd", "NOT_FOUND", r"\.\./\.\./etc/passwd"),
    case(14, "encoded", "..%2f..%2fetc", "NOT_FOUND", r"\.\.%2f\.\.%2fetc"),
    case(14, "backslashes", r"..\..\etc", "NOT_FOUND", "etc"),
    case(14, "absolute", "/etc/passwd", "NOT_FOUND", "/etc/passwd"),
    case(14, "right-to-left", RTL, "NOT_FOUND", r"\\u202esimple"),
    case(14, "escape-codes", "\x1b[31msimple", "INVALID_ARGUMENT", r"\\x1b\[31msimple"),
    case(14, "served-one-and-more", "simple/../simple", "NOT_FOUND", "simple"),
    case(14, "other-case", "SIMPLE", "NOT_FOUND", "SIMPLE"),
]


@pytest.mark.parametrize(("name", "code", "says"), NAMES)
def test_unknown_name(attacked: Target, name: str, code: str, says: str) -> None:
    sent = (name, name.replace("\\", "\\\\"))
    with attacked.survives():
        attacked.refused(simple(model_name=name), code, says, sent=sent)
        for method, message in (
            ("ModelMetadata", pb.ModelMetadataRequest(name=name)),
            ("ModelConfig", pb.ModelConfigRequest(name=name)),
        ):
            attacked.refused(message, code, says, method=method, sent=sent)
        message = pb.ModelStatisticsRequest(name=name)
        attacked.refused(
            message, "INVALID_ARGUMENT", "not available", method="ModelStatistics", sent=sent
        )


@pytest.mark.parametrize(
    ("name", "code"),
    [
        case(13, "unknown", "nobody", "OK"),
        case(14, "parents", "../../etc/passwd", "OK"),
        case(13, "empty", "", "INVALID_ARGUMENT"),
        case(15, "nul", "simple\0evil", "INVALID_ARGUMENT"),
    ],
)
def test_readiness_of_what_is_not_there(attacked: Target, name: str, code: str) -> None:
    with attacked.survives():
        got, says, answer = attacked.call("ModelReady", pb.ModelReadyRequest(name=name))
        assert got.name == code
        assert not pb.ModelReadyResponse.FromString(answer).ready
        assert_clean(says)


@pytest.mark.parametrize(
    ("version", "code"),
    [
        case(16, "parents", "../1", "INVALID_ARGUMENT"),
        case(16, "negative", "-5", "INVALID_ARGUMENT"),
        case(16, "2^70", str(2**70), "INVALID_ARGUMENT"),
        case(16, "7", "7", "NOT_FOUND"),
        case(16, "2^63", str(2**63), "INVALID_ARGUMENT"),
        case(16, "2^63-1", str(2**63 - 1), "NOT_FOUND"),
    ],
)
def test_unknown_version(attacked: Target, version: str, code: str) -> None:
    named = {"name": "simple", "version": version}
    with attacked.survives():
        attacked.refused(simple(model_version=version), code, sent=(version,))
        for method in ("ModelMetadata", "ModelConfig"):
            message = getattr(pb, method + "Request")(**named)
            attacked.refused(message, code, method=method, sent=(version,))


SHARED = {"shared_memory_region": text("nobody"), "shared_memory_byte_size": number(64)}


@pytest.mark.parametrize(
    "request_",
    [
        case(22, "unregistered", of_tensors(**SHARED)),
        case(22, "offset-negative", of_tensors(shared_memory_offset=number(-1), **SHARED)),
        case(22, "offset-2^63-1", of_tensors(shared_memory_offset=number(2**63 - 1), **SHARED)),
        case(22, "no-region", of_tensors(shared_memory_offset=number(0))),
        case(22, "output", wanting("OUTPUT0", **SHARED)),
        case(22, "output-key", wanting("OUTPUT0", shared_memory_region=text("/../x"))),
    ],
)
def test_shared_memory_of_tensors(attacked: Target, request_: Any) -> None:
    with attacked.survives():
        attacked.refused(request_, "UNIMPLEMENTED", "shared memory is disabled")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        case(
            22,
            "register",
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(name="a", key="/../x", byte_size=64),
        ),
        case(
            22,
            "register-reserved",
            "SystemSharedMemoryRegister",
            pb.SystemSharedMemoryRegisterRequest(
                name="triton_python_backend_shm_region_1", key="/x", offset=2**63, byte_size=2**63
            ),
        ),
        case(22, "status", "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
        case(
            22,
            "unregister",
            "SystemSharedMemoryUnregister",
            pb.SystemSharedMemoryUnregisterRequest(),
        ),
        case(
            22,
            "cuda",
            "CudaSharedMemoryRegister",
            pb.CudaSharedMemoryRegisterRequest(name="a", raw_handle=bytes(64)),
        ),
        case(39, "unknown", "Nothing", b""),
        case(39, "unknown-with-body", "ModelInfer2", simple()),
        case(39, "other-case", "serverlive", b""),
        case(39, "unknown-service", "/nobody.Service/Do", b""),
        case(39, "no-method", SERVICE, b""),
        case(39, "parents", "/../../etc/passwd", b""),
        case(39, "long", "/" + "a" * 4000, b""),
    ],
)
def test_unknown_rpc(attacked: Target, method: str, message: Any) -> None:
    with attacked.survives():
        attacked.refused(message, "UNIMPLEMENTED", method=method)


# Rows 23 and 24: the model takes one request at a time.

SLOW = single("slow", "FP32", [2], np.float32([1, 2]).tobytes())


@contextlib.contextmanager
def busy(attacked: Target) -> Iterator[None]:
    """Has the one instance of the slow model busy, and lets it finish."""
    running = attacked.channel.unary_unary(SERVICE + "ModelInfer").future(SLOW.SerializeToString())
    time.sleep(SLOW_MS / 3000)
    yield
    running.result(20)


@pytest.mark.parametrize("timeout_s", [0.0, 0.001, 0.05])
def test_row23_deadline(attacked: Target, timeout_s: float) -> None:
    with attacked.survives():
        before = attacked.successes("slow")
        with busy(attacked):
            began_s = time.monotonic()
            assert attacked.call("ModelInfer", SLOW, timeout_s)[0].name == "DEADLINE_EXCEEDED"
            request = single("slow", "FP32", [2], bytes(8))
            request.parameters["timeout"].int64_param = round(timeout_s * 1e6) or 1
            attacked.refused(request, "DEADLINE_EXCEEDED", "deadline")
            assert time.monotonic() - began_s < SLOW_MS / 1500
        attacked.infer(SLOW)
        assert attacked.successes("slow") == before + 2


def test_row24_cancel_in_the_queue(attacked: Target) -> None:
    infer = attacked.channel.unary_unary(SERVICE + "ModelInfer")
    with attacked.survives():
        before = attacked.successes("slow")
        with busy(attacked):
            waiting = [infer.future(SLOW.SerializeToString()) for _ in range(20)]
            time.sleep(0.05)
            for call in waiting:
                call.cancel()
            assert {call.code() for call in waiting} == {grpc.StatusCode.CANCELLED}
        began_s = time.monotonic()
        attacked.infer(SLOW)
        assert time.monotonic() - began_s < 2.5 * SLOW_MS / 1000  # nobody in front of it
        assert attacked.successes("slow") == before + 2


def test_row24_a_client_that_vanishes_from_the_queue(attacked: Target) -> None:
    with attacked.survives():
        before = attacked.successes("slow")
        with busy(attacked):
            gone = grpc.insecure_channel(attacked.server.grpc)
            call = gone.unary_unary(SERVICE + "ModelInfer")
            waiting = [call.future(SLOW.SerializeToString()) for _ in range(20)]
            time.sleep(0.05)
            gone.close()
            assert all(one.code() is grpc.StatusCode.CANCELLED for one in waiting)
        attacked.infer(SLOW)
        assert attacked.successes("slow") == before + 2


def test_row24_cancel_at_every_moment(attacked: Target) -> None:
    infer = attacked.channel.unary_unary(SERVICE + "ModelInfer")
    message = simple().SerializeToString()
    with attacked.survives():
        for attempt in range(300):
            call = infer.future(message)
            time.sleep(attempt * 5e-6)
            call.cancel()


# Row 25: the repository.


def load(name: str, **parameters: Any) -> Any:
    request = pb.RepositoryModelLoadRequest(model_name=name)
    for key, choice in parameters.items():
        request.parameters[key].CopyFrom(pb.ModelRepositoryParameter(**choice))
    return request


FILE = {"bytes_param": b"evil"}
CONFIG = {"config": {"string_param": "{}"}}


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        case(25, "parents", load("../../etc"), "INVALID_ARGUMENT", "path traversal"),
        case(25, "absolute", load("/etc"), "INVALID_ARGUMENT", "path traversal"),
        case(25, "backslashes", load("..\\etc"), "INVALID_ARGUMENT", "path traversal"),
        case(25, "dots", load(".."), "INVALID_ARGUMENT", "path traversal"),
        case(25, "dot", load("."), "INVALID_ARGUMENT", "not a model name"),
        case(25, "hidden", load(".git"), "INVALID_ARGUMENT", "not a model name"),
        case(25, "empty", load(""), "INVALID_ARGUMENT", "names no model"),
        case(25, "nul", load("simple\0evil"), "INVALID_ARGUMENT", r"simple\\x00evil"),
        case(25, "star", load("*"), "INVALID_ARGUMENT", "not a model name"),
        case(25, "url", load("http://127.0.0.1/x"), "INVALID_ARGUMENT", "path traversal"),
        case(25, "right-to-left", load(RTL), "INVALID_ARGUMENT", r"\\u202e"),
        case(25, "long", load(LONG), "INVALID_ARGUMENT", "not a model name"),
        case(25, "unknown", load("nobody"), "NOT_FOUND", "failed to load 'nobody'"),
        case(25, "of-129-letters", load("n" * 129), "INVALID_ARGUMENT", "more than 128"),
        case(25, "broken", load("broken"), "INTERNAL", "failed to load 'broken'"),
        case(
            25,
            "file",
            load("simple", **{"file:1/../../x": FILE}),
            "INVALID_ARGUMENT",
            "files are not taken",
        ),
        case(
            25,
            "file-and-config",
            load("simple", **{"file:1/model.onnx": FILE}, **CONFIG),
            "INVALID_ARGUMENT",
            "",
        ),
        case(
            25,
            "file-new",
            load("fresh", **{"file:1/model.onnx": FILE}),
            "INVALID_ARGUMENT",
            "files are not taken",
        ),
        *[
            case(25, f"config-{name}", load("simple", config=given), "INVALID_ARGUMENT", says)
            for name, given, says in (
                ("truncated", {"string_param": "{"}, "not valid JSON"),
                ("empty", {"string_param": ""}, "not valid JSON"),
                ("list", {"string_param": "[]"}, "must be a JSON object"),
                ("deep", {"string_param": '{"a":' * 100_000}, r"allowed limit \(100\)"),
                ("twice", {"string_param": '{"name": "a", "name": "b"}'}, "stands twice"),
                ("unknown", {"string_param": '{"\\r\\n\u202e": 1}'}, r"\\r\\n\\u202e"),
                ("wrong-kind", {"string_param": '{"input": 7}'}, "cannot be used|can be used"),
                ("other-name", {"string_param": '{"name": "../x"}'}, "is not the model's"),
                ("file", {"string_param": '{"default_model_filename": "../x"}'}, "file name"),
                ("number", {"int64_param": 1}, "must be a string"),
                ("bytes", {"bytes_param": b"{}"}, "must be a string"),
            )
        ],
        case(
            25,
            "parameter",
            load("simple", **{"\r\n" + RTL + LONG: FILE}),
            "INVALID_ARGUMENT",
            "is unknown",
        ),
    ],
)
def test_load(attacked: Target, request_: Any, code: str, says: str) -> None:
    before = tree(attacked.root)
    with attacked.survives():
        got, message, _ = attacked.call("RepositoryModelLoad", request_)
        assert got.name in code.split("|"), message
        attacked.refused(
            request_, got.name, says, method="RepositoryModelLoad", sent=(request_.model_name,)
        )
    assert tree(attacked.root) == before


@pytest.mark.parametrize(
    ("config", "says"),
    [
        case(25, "labels-outside", {"label_filename": "../../etc/passwd"}, "no label file"),
        case(25, "other-dims", {"dims": [2**62] * 1000}, "with shape"),
        case(25, "unknown-output", {"name": "\x1b[2J" + RTL}, r"output '\x1b[2J\u202esimple'"),
        case(25, "long-output", {"name": LONG}, "declares the output 'nnn"),
    ],
)
def test_a_configuration_that_does_not_fit(
    attacked: Target, config: dict[str, Any], says: str
) -> None:
    """The version that was there goes on."""
    output = {"name": "OUTPUT0", "data_type": "TYPE_INT32", "dims": [16], **config}
    given = json.dumps({"max_batch_size": 8, "output": [output]})
    with attacked.survives():
        request = load("simple", config={"string_param": given})
        got, message, _ = attacked.call("RepositoryModelLoad", request)
        assert got is grpc.StatusCode.INTERNAL
        assert says in message
        assert_clean(message.removesuffix("..."), ["../../etc/passwd", LONG[:700]])
    attacked.call("RepositoryModelLoad", load("simple"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        case(25, "parents", "../../etc", "INVALID_ARGUMENT"),
        case(25, "empty", "", "INVALID_ARGUMENT"),
        case(25, "nul", "simple\0", "INVALID_ARGUMENT"),
        case(25, "unknown", "nobody", "OK"),
    ],
)
def test_unload(attacked: Target, name: str, code: str) -> None:
    with attacked.survives():
        message = pb.RepositoryModelUnloadRequest(model_name=name)
        got, says, _ = attacked.call("RepositoryModelUnload", message)
        assert got.name == code
        assert_clean(says, (name,))


def test_row25_another_repository(attacked: Target) -> None:
    with attacked.survives():
        for method, message in (
            ("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="../..")),
            (
                "RepositoryModelLoad",
                pb.RepositoryModelLoadRequest(repository_name="/", model_name="simple"),
            ),
            (
                "RepositoryModelUnload",
                pb.RepositoryModelUnloadRequest(repository_name="/", model_name="simple"),
            ),
        ):
            attacked.refused(message, "UNIMPLEMENTED", "not supported", method=method)


def test_row25_index_after_a_failed_load(attacked: Target) -> None:
    with attacked.survives():
        _, _, answer = attacked.call("RepositoryIndex", b"")
        index = {m.name: m for m in pb.RepositoryIndexResponse.FromString(answer).models}
        assert index["simple"].state == "READY"
        assert index["broken"].state == "UNAVAILABLE"
        assert_clean(index["broken"].reason)


# Rows 26, 37 and 39: messages.

GOOD = simple().SerializeToString()
GARBAGE = [
    case(26, "noise", bytes(range(255, 0, -1))),
    case(26, "zeros", bytes(100)),
    case(26, "much-noise", np.random.default_rng(0).bytes(1_000_000)),
    case(26, "cut", GOOD[:-5]),
    case(26, "cut-large", simple(raws=[RAW, bytes(100_000)]).SerializeToString()[:-5]),
    case(26, "bad-utf-8", b"\x0a\x04\xff\xfe\xfd\xfc"),
    case(26, "surrogate", b"\x0a\x03\xed\xa0\x80"),
    case(26, "field-zero", b"\x02\x01a"),
    case(26, "endless-varint", b"\x0a" + b"\xff" * 20),
    case(26, "length-2^63", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(20_000)),
    case(26, "end-group", b"\x0c"),
    case(26, "deep-groups", b"\x7b" * 100_000),
    case(26, "json", b'{"model_name": "simple"}'),
]


@pytest.mark.parametrize("message", GARBAGE)
def test_garbage(attacked: Target, message: bytes) -> None:
    with attacked.survives():
        says = "not a valid ModelInferRequest"
        attacked.refused(message, "INVALID_ARGUMENT", says)


@pytest.mark.parametrize("field", [b"\x22\x00", b"\x2a\x00", b"\x32\x00", b"\x3a\x00"])
@pytest.mark.parametrize("before", [b"", b"\x80\x08\x01"], ids=["usual", "odd"])
def test_row26_millions_of_empty_fields(attacked: Target, field: bytes, before: bytes) -> None:
    """Two bytes each, which would become objects of hundreds."""
    with attacked.survives():
        began_s = time.monotonic()
        attacked.refused(before + b"\x0a\x06simple" + field * 2_000_000, says="fields|no form")
        assert time.monotonic() - began_s < 2


@pytest.mark.parametrize(
    "method",
    [
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelConfig",
        "ModelStatistics",
        "RepositoryIndex",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
        HEALTH + "Check",
    ],
)
def test_row26_garbage_to_every_rpc(attacked: Target, method: str) -> None:
    with attacked.survives():
        attacked.refused(b"\x0a\xff\xff\xff", method=method, says="not a")


@pytest.mark.parametrize("method", [HEALTH + "Watch", REFLECTION])
def test_row26_garbage_on_a_stream(attacked: Target, method: str) -> None:
    with attacked.survives():
        call = attacked.channel.stream_stream(method)(iter([b"\x0a\xff\xff\xff"]), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert_clean(caught.value.details())


def test_row26_a_stream_where_one_message_is_due(attacked: Target) -> None:
    stream = attacked.channel.stream_stream(SERVICE + "ModelInfer")
    with attacked.survives():
        for messages in ([], [GOOD, GOOD]):
            call = stream(iter(messages), timeout=10)
            with contextlib.suppress(grpc.RpcError):
                list(call)
            assert call.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.OK)
            assert_clean((call.details() or "").replace(SERVICE, ""))


def test_row37_a_message_over_the_limit(attacked: Target) -> None:
    request = simple(raws=[RAW, bytes(64 * 2**20)])
    with attacked.survives():
        attacked.refused(request, "RESOURCE_EXHAUSTED", "larger than max")


@pytest.mark.parametrize(
    "service", ["nobody", "inference.grpcinferenceservice", "\0", "../..", LONG]
)
def test_row39_health_of_an_unknown_service(attacked: Target, service: str) -> None:
    message = b"\x0a" + varint(len(service.encode())) + service.encode()
    with attacked.survives():
        attacked.refused(message, "NOT_FOUND", "unknown service", method=HEALTH + "Check")


def varint(value: int) -> bytes:
    head = bytes([value & 127 | 128]) if value > 127 else b""
    return head + varint(value >> 7) if head else bytes([value])
