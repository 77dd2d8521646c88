"""``ModelStreamInfer`` through NVIDIA's clients: in order, and no error ends the stream."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import aio
from tritonclient.grpc import service_pb2 as pb

from tests.e2e.hostile import SERVICE, Target, assert_clean, simple, single, target


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("stream")) as started:
        yield started


def scores(*values: float) -> list[Any]:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.array([values], np.float32))
    return [tensor]


def final(response: Any) -> bool:
    return bool(response.parameters["triton_final_response"].bool_param)


def test_client(server: Target) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(server.server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            model = "nobody" if number == 7 else "scores"
            client.async_stream_infer(
                model,
                scores(number, 0, 0, 0),
                request_id=str(number),
                enable_empty_final_response=number % 2 == 0,
            )
        for number in range(20):
            result, error = answers.get(timeout=20)
            if number == 7:
                assert "nobody" in error.message()
                continue
            response = result.get_response()
            assert (error, response.id, final(response)) == (None, str(number), True)
            assert result.as_numpy(response.outputs[0].name).tolist() == [[number, 0, 0, 0]]
        client.stop_stream()
    assert answers.empty()


def test_asyncio(server: Target) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            inputs = scores(number, 0, 0, 0)
            yield {"model_name": "scores", "inputs": inputs, "request_id": str(number)}

    async def run() -> list[str]:
        async with aio.InferenceServerClient(server.server.grpc) as client:
            found = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                found.append(result.get_response().id)
            return found

    assert asyncio.run(run()) == [str(number) for number in range(10)]


def test_hostile_messages(server: Target) -> None:
    sent = [
        b"\xff\xff not a message",
        simple(model_name="simple", id="wrong", raws=[b"", b""]).SerializeToString(),
        b"",
        simple(2**31, 2**31).SerializeToString(),
        simple(id="good").SerializeToString(),
    ]
    reserved = simple()
    reserved.parameters["triton_enable_empty_final_response"].int64_param = 1
    sent.append(reserved.SerializeToString())
    call = server.channel.stream_stream(SERVICE + "ModelStreamInfer")
    with server.survives():
        answers = [pb.ModelStreamInferResponse.FromString(a) for a in call(iter(sent), timeout=20)]
    assert [bool(answer.error_message) for answer in answers] == [True] * 4 + [False, True]
    assert all(final(answer.infer_response) for answer in answers)
    assert [answer.infer_response.id for answer in answers] == ["", "wrong", "", "", "good", ""]
    for answer in answers:
        assert_clean(answer.error_message)


def test_clients_that_go(server: Target) -> None:
    slow = single("slow", "FP32", [2], np.float32([1, 2]).tobytes()).SerializeToString()
    with server.survives():
        for _ in range(20):
            call = server.channel.stream_stream(SERVICE + "ModelStreamInfer")(iter([slow] * 5))
            call.cancel()
            with pytest.raises(grpc.RpcError):
                next(call)
