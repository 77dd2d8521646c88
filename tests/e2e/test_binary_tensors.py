"""Binary tensors and compression over HTTP, through NVIDIA's unmodified clients."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio

from tests.e2e.hostile import Target, document, target

LEFT = np.arange(16, dtype=np.int32)[None]
RIGHT = np.full((1, 16), 3, dtype=np.int32)
HEADER = "Inference-Header-Content-Length"
CODINGS = [None, "gzip", "deflate"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("binary")) as started:
        yield started


def inputs(api: Any, **form: bool) -> list[Any]:
    tensors = []
    for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT)):
        tensor = api.InferInput(name, array.shape, "INT32")
        tensor.set_data_from_numpy(array, **form)
        tensors.append(tensor)
    return tensors


def assert_right(answer: Any) -> None:
    assert (answer.as_numpy("OUTPUT0") == LEFT + RIGHT).all()
    assert (answer.as_numpy("OUTPUT1") == LEFT - RIGHT).all()


@pytest.mark.parametrize("asked", CODINGS)
@pytest.mark.parametrize("sent", CODINGS)
@pytest.mark.parametrize("binary", [True, False])
def test_http(server: Target, binary: bool, sent: str | None, asked: str | None) -> None:
    names = ("OUTPUT0", "OUTPUT1")
    with http_client.InferenceServerClient(server.server.http) as client:
        answer = client.infer(
            "simple",
            inputs(http_client, binary_data=binary),
            outputs=[http_client.InferRequestedOutput(n, binary_data=binary) for n in names],
            request_compression_algorithm=sent,
            response_compression_algorithm=asked,
        )
        assert_right(answer)
        has_bytes = [
            "binary_data_size" in o.get("parameters", {}) for o in answer.get_response()["outputs"]
        ]
        assert has_bytes == [binary] * 2
        assert_right(client.infer("simple", inputs(http_client, binary_data=binary)))


@pytest.mark.parametrize("coding", CODINGS)
def test_http_asyncio(server: Target, coding: str | None) -> None:
    async def infer() -> Any:
        async with http_aio.InferenceServerClient(server.server.http) as client:
            assert (await client.get_server_metadata())["name"]
            return await client.infer(
                "simple",
                inputs(http_client),
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )

    assert_right(asyncio.run(infer()))


@pytest.mark.parametrize("coding", CODINGS)
def test_grpc(server: Target, coding: str | None) -> None:
    with grpc_client.InferenceServerClient(server.server.grpc) as client:
        assert_right(client.infer("simple", inputs(grpc_client), compression_algorithm=coding))


@pytest.mark.parametrize("coding", CODINGS)
def test_grpc_asyncio(server: Target, coding: str | None) -> None:
    async def infer() -> Any:
        async with grpc_aio.InferenceServerClient(server.server.grpc) as client:
            return await client.infer("simple", inputs(grpc_client), compression_algorithm=coding)

    assert_right(asyncio.run(infer()))


@pytest.mark.parametrize("dtype", ["BYTES", "FP16"])
def test_what_json_cannot_carry(server: Target, dtype: str) -> None:
    array = np.array([[b"\xff\x00", b""]], np.object_)
    if dtype == "FP16":
        array = np.array([[np.nan, np.inf]], np.float16)
    tensor = http_client.InferInput("x", [1, 2], dtype)
    tensor.set_data_from_numpy(array)
    with http_client.InferenceServerClient(server.server.http) as client:
        answer = client.infer("text" if dtype == "BYTES" else "half", [tensor])
    name = answer.get_response()["outputs"][0]["name"]
    assert np.array_equal(answer.as_numpy(name), array, equal_nan=dtype == "FP16")


def test_classes_as_bytes(server: Target) -> None:
    tensor = http_client.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([[1, 4, 2, 3]], np.float32))
    with http_client.InferenceServerClient(server.server.http) as client:
        metadata = client.get_model_metadata("scores")
        name = metadata["outputs"][0]["name"]
        wanted = [http_client.InferRequestedOutput(name, class_count=2)]
        answer = client.infer("scores", [tensor], outputs=wanted)
    assert answer.as_numpy(name).tolist() == [[b"4.000000:1", b"3.000000:3"]]


def test_one_output_may_differ_from_the_rest(server: Target) -> None:
    body = document(
        outputs=[{"name": "OUTPUT0"}, {"name": "OUTPUT1", "parameters": {"binary_data": False}}],
        parameters={"binary_data_output": True},
    )
    reply = server.post("/v2/models/simple/infer", body)
    assert reply.headers["content-type"] == "application/octet-stream"
    size = int(reply.headers[HEADER.lower()])
    first, second = json.loads(reply.body[:size])["outputs"]
    assert first["parameters"] == {"binary_data_size": 64}
    assert "data" not in first
    assert second["data"] == [0] * 16
    assert len(reply.body) == size + 64


def test_raw_body(server: Target) -> None:
    values = np.arange(4, dtype=np.float32)
    reply = server.post("/v2/models/scores/infer", values.tobytes(), {HEADER: "0"})
    assert reply.status == 200
    size = int(reply.headers[HEADER.lower()])
    assert json.loads(reply.body[:size])["outputs"][0]["shape"] == [1, 4]
    assert reply.body[size:] == values.tobytes()
    assert server.post("/v2/models/simple/infer", bytes(64), {HEADER: "0"}).status == 400
    assert server.post("/v2/models/scores/infer", bytes(15), {HEADER: "0"}).status == 400
    assert server.post("/v2/models/nobody/infer", bytes(16), {HEADER: "0"}).status == 404


def test_only_inference_is_compressed(server: Target) -> None:
    for coding, unpack in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        accepts = {"Accept-Encoding": coding}
        reply = server.post("/v2/models/simple/infer", document(), accepts)
        assert reply.headers["content-encoding"] == coding
        assert len(json.loads(unpack(reply.body))["outputs"]) == 2
        for plain in (
            server.ask("GET", "/v2", b"", accepts),
            server.post("/v2/models/simple/infer", {}, accepts),
        ):
            assert "content-encoding" not in plain.headers
            json.loads(plain.body)
