"""Servers that answer wrongly, slowly, endlessly or not at all, and what becomes of a request.

After each of them the same session still answers, and no text of theirs has reached the client.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from crossfade.runtimes.core.errors import Code, CrossfadeError
from crossfade.runtimes.core.model import Session
from crossfade.serving.wire import open_inference as v2
from crossfade.serving.wire import tf_serving as tfs
from tests.serving.remote.conftest import Open, deadline
from tests.serving.remote.far_servers import (
    GrpcFar,
    HttpFar,
    Talk,
    answers,
    drips,
    floods,
    hang_up,
    reset,
    says,
)

INPUTS = {"x": np.float32([[1, 2]])}
SECRET = "http://10.11.12.13:8000/srv/secret"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 1 << 20
MOST_MIB = 64


def fails(session: Session, seconds: float = 10.0) -> CrossfadeError:
    """Runs once; returns the error, which came in time and says nothing that is nobody's."""
    before = psutil.Process().memory_info().rss
    began_s = time.monotonic()
    with deadline(seconds), pytest.raises(CrossfadeError) as failed:
        session.run(INPUTS, "serving_default", ())
    assert time.monotonic() - began_s < seconds + 5
    assert psutil.Process().memory_info().rss - before < MOST_MIB << 20
    message = failed.value.message
    for part in ("10.11.12.13", "127.0.0.1", "/srv", "secret", "Traceback", "\n"):
        assert part not in message
    return failed.value


def v2_json(**changes: Any) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 4.0], **changes}
    return json.dumps({"model_name": "m", "outputs": [output]}).encode()


def binary(head: dict[str, Any], tail: bytes, size: int | None = None) -> Talk:
    text = json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], **head}]})
    length = len(text) if size is None else size
    return answers(text.encode() + tail, headers=f"Inference-Header-Content-Length: {length}\r\n")


NOT_V2 = {
    "no JSON": answers(b"<html>" + SECRET.encode()),
    "half of it": answers(v2_json()[:-9]),
    "deep": answers(b'{"outputs":' + b"[" * 100_000),
    "a list": answers(b"[]"),
    "empty": answers(b""),
    "no outputs": answers(b"{}"),
    "outputs are no list": answers(b'{"outputs": 3}'),
    "an output is no object": answers(b'{"outputs": [3]}'),
    "another output": answers(v2_json(name="z")),
    "a name that is none": answers(v2_json(name=[1])),
    "another dtype": answers(v2_json(datatype="INT64", data=[3, 4])),
    "no dtype": answers(v2_json(datatype="SECRET")),
    "another rank": answers(v2_json(shape=[2])),
    "another size": answers(v2_json(shape=[1, 3], data=[1.0, 2.0, 3.0])),
    "more rows": answers(v2_json(shape=[2, 2], data=[1.0, 2.0, 3.0, 4.0])),
    "fewer values": answers(v2_json(data=[1.0])),
    "ragged": answers(v2_json(data=[[1.0], [1.0, 2.0]])),
    "text": answers(v2_json(data=["a", "b"])),
    "nulls": answers(v2_json(data=[None, None])),
    "a negative size": answers(v2_json(shape=[-1, 2])),
    "a huge size": answers(v2_json(shape=[2**40, 2])),
    "sizes whose product wraps": answers(v2_json(shape=[2**33, 2**31])),
    "a million dimensions": answers(v2_json(shape=[1] * 100_000)),
    "shared memory": answers(v2_json(parameters={"shared_memory_region": "r"})),
    "too few bytes": binary({"parameters": {"binary_data_size": 4}}, b"abcd"),
    "more than there is": binary({"parameters": {"binary_data_size": 2**40}}, b"abcdabcd"),
    "bytes left over": binary({"parameters": {"binary_data_size": 8}}, b"abcdabcdabcd"),
    "a head that is too long": binary({"parameters": {"binary_data_size": 8}}, b"abcdabcd", 2**62),
}
NOT_HTTP = {
    "noise": says(bytes(range(256)) * 40, then_close=True),
    "a huge head": says(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000 + b"\r\n"),
    "two lengths": answers(b"{}", headers="Content-Length: 99\r\n"),
    "a length that is none": says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    "a chunk that is none": says(CHUNKED + b"zz\r\n"),
    "compressed": answers(b"\x1f\x8b", headers="Content-Encoding: gzip\r\n"),
    "elsewhere": answers(b"", "302 Found", f"Location: {SECRET}\r\n"),
    "switched": says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "too large": says(f"HTTP/1.1 200 OK\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode()),
    "a body without an end": floods(CHUNKED, b"400\r\n" + b" " * 1024 + b"\r\n"),
    "crumbs without an end": floods(CHUNKED, b"1\r\n \r\n" * 10_000),
    "its fault": answers(SECRET.encode(), "500 Internal Server Error"),
}
GONE = {
    "no word": hang_up,
    "a reset": reset,
    "another protocol": says(b"SSH-2.0-OpenSSH_9.2\r\n", then_close=True),
    "closed in the head": says(b"HTTP/1.1 200 OK\r\nConte", then_close=True),
    "closed in the body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", then_close=True),
    "closed in a chunk": says(CHUNKED + b"ff\r\nab", then_close=True),
    "not now": answers(SECRET.encode(), "503 Service Unavailable"),
}
SLOW = {
    "silence": lambda _: time.sleep(30),
    "a slow head": drips(b"HTTP/1.1 200 OK\r\nx: "),
    "a slow body": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{"),
    "slow chunks": drips(CHUNKED + b"fff\r\n{"),
    "interim answers without an end": drips(b"HTTP/1.1 100 Continue\r\n\r\n" * 500, 0.001),
}


def http_session(open_session: Open, far: HttpFar) -> Session:
    many = {"failures": 99}
    return open_session("open_inference_http", far.url, max_answer_bytes=LIMIT, breaker=many)


def still_answers(session: Session, far: HttpFar) -> None:
    far.talk = answers(v2_json())
    with deadline(10):
        found = session.run(INPUTS, "serving_default", ())
    np.testing.assert_array_equal(found["y"], np.float32([[3, 4]]))


@pytest.mark.parametrize("talk", [*NOT_V2.values(), *NOT_HTTP.values()], ids=[*NOT_V2, *NOT_HTTP])
def test_what_is_no_answer(open_session: Open, http_far: HttpFar, talk: Talk) -> None:
    session = http_session(open_session, http_far)
    http_far.talk = talk
    assert fails(session).code is Code.INTERNAL
    still_answers(session, http_far)


@pytest.mark.parametrize("talk", GONE.values(), ids=GONE)
def test_what_goes_away(open_session: Open, http_far: HttpFar, talk: Talk) -> None:
    session = http_session(open_session, http_far)
    still_answers(session, http_far)  # so that a connection is kept
    http_far.talk = talk
    assert fails(session).code is Code.UNAVAILABLE
    still_answers(session, http_far)


@pytest.mark.parametrize("talk", SLOW.values(), ids=SLOW)
def test_what_is_slow(open_session: Open, http_far: HttpFar, talk: Talk) -> None:
    session = http_session(open_session, http_far)
    http_far.talk = talk
    assert fails(session, 0.6).code is Code.DEADLINE_EXCEEDED
    still_answers(session, http_far)


def test_more_after_an_answer_is_not_the_next_ones(open_session: Open, http_far: HttpFar) -> None:
    """What a server says unasked must not be taken for the answer to the next request."""
    session = http_session(open_session, http_far)
    good = v2_json()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(good)}\r\n\r\n".encode()
    forged = v2_json(data=[6.0, 6.0])
    http_far.talk = says(head + good + head + forged)
    with deadline(10):
        session.run(INPUTS, "serving_default", ())
    still_answers(session, http_far)
    assert http_far.connections == 2


REFUSALS = {
    400: Code.INVALID_ARGUMENT,
    401: Code.FAILED_PRECONDITION,
    403: Code.FAILED_PRECONDITION,
    404: Code.UNAVAILABLE,
    409: Code.FAILED_PRECONDITION,
    413: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
    500: Code.INTERNAL,
    599: Code.INTERNAL,
}


@pytest.mark.parametrize(("status", "code"), REFUSALS.items())
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": f"no good shape at {SECRET}"}).encode(),
        json.dumps({"error": {"code": 1, "message": f"no good shape at {SECRET}"}}).encode(),
        f"no good shape at {SECRET}".encode(),
    ],
    ids=["v2", "google", "text"],
)
def test_a_refusal_is_told_in_our_words(
    open_session: Open, http_far: HttpFar, status: int, code: Code, body: bytes
) -> None:
    session = http_session(open_session, http_far)
    http_far.talk = answers(body, f"{status} No")
    error = fails(session)
    assert error.code is code
    assert ("no good shape" in error.message) == (code is Code.INVALID_ARGUMENT)


# TensorFlow Serving's REST and Vertex AI: columns and rows that are none.

NO_ROWS = {
    "nothing": b"{}",
    "too few": b'{"predictions": []}',
    "too many": b'{"predictions": [[1, 2], [3, 4]]}',
    "no list": b'{"predictions": {"y": 3}}',
    "another name": b'{"predictions": [{"z": [1, 2]}]}',
    "another size": b'{"predictions": [{"y": [1, 2, 3]}]}',
    "text": b'{"predictions": [{"y": ["a", "b"]}]}',
    "too large for FP32": b'{"predictions": [{"y": [1e39, 2]}]}',
    "twice": b'{"predictions": [{"y": [1, 2], "y": [3, 4]}]}',
}


@pytest.mark.parametrize("body", NO_ROWS.values(), ids=NO_ROWS)
def test_rows_that_are_none(open_session: Open, http_far: HttpFar, body: bytes) -> None:
    session = open_session("vertex", f"{http_far.url}/v1/endpoints/1:predict")
    http_far.talk = answers(body)
    assert fails(session).code is Code.INTERNAL
    http_far.talk = answers(b'{"predictions": [[3, 4]], "deployedModelId": "7"}')
    np.testing.assert_array_equal(session.run(INPUTS, "serving_default", ())["y"], [[3, 4]])


@pytest.mark.parametrize(
    "body", [b"{}", b'{"outputs": 3}', b'{"outputs": [[1]]}', b'{"outputs": [[1, 2], [1]]}']
)
def test_columns_that_are_none(open_session: Open, http_far: HttpFar, body: bytes) -> None:
    session = open_session("tensorflow_serving_rest", http_far.url)
    http_far.talk = answers(body)
    assert fails(session).code is Code.INTERNAL
    http_far.talk = answers(b'{"outputs": [[3, 4]]}')
    np.testing.assert_array_equal(session.run(INPUTS, "serving_default", ())["y"], [[3, 4]])


# gRPC


def v2_message(**changes: Any) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], **changes}
    data: bytes = v2.ModelInferResponse(
        outputs=[output], raw_output_contents=[np.float32([3, 4]).tobytes()]
    ).SerializeToString()
    return data


def predict_message(name: str = "y", shape: tuple[int, ...] = (1, 2), dtype: int = 1) -> bytes:
    response = tfs.PredictResponse()
    tensor = response.outputs[name]
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend([3, 4])
    data: bytes = response.SerializeToString()
    return data


def field(tag: int, content: bytes) -> bytes:
    from crossfade.serving.wire.fields import varint_bytes

    return varint_bytes(tag << 3 | 2) + varint_bytes(len(content)) + content


NO_MESSAGE = {
    "noise": b"\xff" * 99,
    "empty": b"",
    "a million empty fields": b"\x32\x00" * 1_000_000,
    "a million empty outputs": b"\x2a\x00" * 1_000_000,
    "another output": v2_message(name="z"),
    "another dtype": v2_message(datatype="INT64"),
    "no dtype": v2_message(datatype="SECRET"),
    "a negative size": v2_message(shape=[-1, 2]),
    "sizes whose product wraps": v2_message(shape=[2**33, 2**31]),
    "a million dimensions": v2_message(shape=[1] * 1_000_000),
    "more rows": v2_message(shape=[2, 1]),
    "raw and no output": v2.ModelInferResponse(raw_output_contents=[b"1234"]).SerializeToString(),
}
NO_PREDICTION = {
    "noise": b"\xff" * 99,
    "empty": b"",
    "a million empty outputs": b"\x0a\x00" * 1_000_000,
    "another output": predict_message("z"),
    "another dtype": predict_message(dtype=9),
    "no dtype": predict_message(dtype=99),
    "a negative size": predict_message(shape=(-1, 2)),
    "sizes whose product wraps": predict_message(shape=(2**33, 2**31)),
    "a million dimensions": field(
        1, field(1, b"y") + field(2, b"\x08\x01" + field(2, b"\x12\x00" * 1_000_000))
    ),
    "more rows": predict_message(shape=(2, 1)),
}
MESSAGES = [
    *(pytest.param("open_inference_grpc", m, v2_message(), id=n) for n, m in NO_MESSAGE.items()),
    *(
        pytest.param("tensorflow_serving_grpc", m, predict_message(), id=f"predict: {n}")
        for n, m in NO_PREDICTION.items()
    ),
]


@pytest.mark.parametrize(("protocol", "message", "good"), MESSAGES)
def test_messages_that_are_no_answer(
    open_session: Open, grpc_far: GrpcFar, protocol: str, message: bytes, good: bytes
) -> None:
    session = open_session(protocol, grpc_far.target)
    grpc_far.answer = lambda *_: message
    assert fails(session).code is Code.INTERNAL
    grpc_far.answer = lambda *_: good
    np.testing.assert_array_equal(session.run(INPUTS, "serving_default", ())["y"], [[3, 4]])


def test_a_message_that_is_too_large(open_session: Open, grpc_far: GrpcFar) -> None:
    session = open_session("open_inference_grpc", grpc_far.target, max_answer_bytes=1000)
    grpc_far.answer = lambda *_: b"\x32\x00" * 1000
    assert fails(session).code is Code.INTERNAL


GRPC_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND: Code.UNAVAILABLE,
    grpc.StatusCode.ALREADY_EXISTS: Code.UNAVAILABLE,
    grpc.StatusCode.PERMISSION_DENIED: Code.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED: Code.FAILED_PRECONDITION,
    grpc.StatusCode.FAILED_PRECONDITION: Code.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE: Code.UNAVAILABLE,
    grpc.StatusCode.ABORTED: Code.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: Code.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED: Code.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL: Code.INTERNAL,
    grpc.StatusCode.UNKNOWN: Code.INTERNAL,
    grpc.StatusCode.DATA_LOSS: Code.INTERNAL,
}


def test_every_code_of_grpc_is_told_in_our_words(open_session: Open, grpc_far: GrpcFar) -> None:
    session = open_session("open_inference_grpc", grpc_far.target, breaker={"failures": 99})
    assert GRPC_CODES.keys() == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    for theirs, ours in GRPC_CODES.items():

        def abort(_: bytes, context: Any, code: Any = theirs) -> bytes:
            context.abort(code, f"no good shape at {SECRET}")
            raise AssertionError

        grpc_far.answer = abort
        error = fails(session)
        assert error.code is ours, theirs
        assert ("no good shape" in error.message) == (ours is Code.INVALID_ARGUMENT)


@pytest.mark.parametrize("protocol", ["open_inference_grpc", "tensorflow_serving_grpc"])
@pytest.mark.parametrize(
    "talk",
    [hang_up, says(b"HTTP/1.1 400 Bad Request\r\n\r\n", then_close=True)],
    ids=["hangs up", "is another protocol"],
)
def test_a_server_that_is_no_grpc_server(
    open_session: Open, http_far: HttpFar, protocol: str, talk: Talk
) -> None:
    http_far.talk = talk
    session = open_session(protocol, f"127.0.0.1:{http_far.port}")
    assert fails(session).code is Code.UNAVAILABLE


METADATA: dict[str, tuple[str, Callable[[], bytes]]] = {
    "no inputs": ("open_inference_grpc", lambda: b""),
    "noise": ("open_inference_grpc", lambda: b"\xff" * 9),
    "a dtype that is none": (
        "open_inference_grpc",
        lambda: v2.ModelMetadataResponse(
            inputs=[{"name": "x", "datatype": "SECRET", "shape": [1]}],
            outputs=[{"name": "y", "datatype": "FP32", "shape": [1]}],
        ).SerializeToString(),
    ),
    "a million inputs": ("open_inference_grpc", lambda: b"\x22\x00" * 1_000_000),
    "no signatures": ("tensorflow_serving_grpc", lambda: b""),
    "tensorflow noise": ("tensorflow_serving_grpc", lambda: b"\xff" * 9),
}


@pytest.mark.parametrize(("protocol", "message"), METADATA.values(), ids=METADATA)
def test_metadata_that_is_none(
    open_session: Open, grpc_far: GrpcFar, protocol: str, message: Callable[[], bytes]
) -> None:
    grpc_far.answer = lambda *_: message()
    with pytest.raises(CrossfadeError, match="the metadata of 'member' cannot be read"):
        open_session(protocol, grpc_far.target, inputs=[], outputs=[])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": [{}], "outputs": [{}]}',
        b'{"metadata": {"signature_def": 3}}',
    ],
)
@pytest.mark.parametrize("protocol", ["open_inference_http", "tensorflow_serving_rest"])
def test_http_metadata_that_is_none(
    open_session: Open, http_far: HttpFar, protocol: str, body: bytes
) -> None:
    http_far.talk = answers(body)
    with pytest.raises(CrossfadeError, match="the metadata of 'member' cannot be read"):
        open_session(protocol, http_far.url, inputs=[], outputs=[])
