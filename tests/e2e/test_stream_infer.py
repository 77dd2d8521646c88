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


# Decoupled models.


def repeating(count: int) -> list[Any]:
    x, n = triton.InferInput("x", [2], "FP32"), triton.InferInput("n", [1], "INT32")
    x.set_data_from_numpy(np.float32([1, 2]))
    n.set_data_from_numpy(np.int32([count]))
    return [x, n]


@pytest.mark.parametrize("empty_final", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_decoupled(server: Target, count: int, empty_final: bool) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with server.survives(), triton.InferenceServerClient(server.server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            "repeat",
            repeating(count),
            request_id="7",
            enable_empty_final_response=empty_final,
        )
        client.async_stream_infer("scores", scores(1, 2, 3, 4), request_id="8")
        for _ in range(count):
            result, error = answers.get(timeout=10)
            assert error is None
            assert result.as_numpy("y").tolist() == [1, 2]
            assert not final(result.get_response())
        if empty_final:
            result, error = answers.get(timeout=10)
            assert error is None
            assert final(result.get_response())
            assert (result.get_response().id, len(result.get_response().outputs)) == ("7", 0)
        result, error = answers.get(timeout=10)
        assert result.get_response().id == "8"
        assert final(result.get_response())
        client.stop_stream()


def test_decoupled_models_answer_only_streams(server: Target) -> None:
    with server.survives(), triton.InferenceServerClient(server.server.grpc) as client:
        with pytest.raises(triton.InferenceServerException, match="decoupled") as caught:
            client.infer("repeat", repeating(1))
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        assert client.get_model_config("repeat").config.model_transaction_policy.decoupled


def test_a_client_that_goes_while_a_model_answers(server: Target) -> None:
    """A million responses: the model stops when nobody reads them."""
    request = pb.ModelInferRequest(model_name="repeat")
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.inputs.add(name="n", datatype="INT32", shape=[1])
    request.raw_input_contents.extend([bytes(8), np.int32([10**6]).tobytes()])
    with server.survives():
        for _ in range(5):
            stream = server.channel.stream_stream(SERVICE + "ModelStreamInfer")
            call = stream(iter([request.SerializeToString()]), timeout=20)
            for _, message in zip(range(10), call, strict=False):
                assert not pb.ModelStreamInferResponse.FromString(message).error_message
            call.cancel()
        # Nothing of them is left that would keep the version from going.
        unload = pb.RepositoryModelUnloadRequest(model_name="repeat")
        assert server.call("RepositoryModelUnload", unload)[0] is grpc.StatusCode.OK
        server.server.wait_for("unloaded", 10, model="repeat")
        load = pb.RepositoryModelLoadRequest(model_name="repeat")
        assert server.call("RepositoryModelLoad", load)[0] is grpc.StatusCode.OK
