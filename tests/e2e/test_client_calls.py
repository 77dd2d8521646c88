"""Every call that NVIDIA's four clients have: one that a new version adds must be named here."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.hostile import ADDEND, SLOW_MS, Target, target

FORMS = {
    "grpc": grpc_client,
    "http": http_client,
    "grpc.aio": grpc_aio,
    "http.aio": http_aio,
}
KEY, SIZE = f"/cf_client_calls_{os.getpid()}", 128


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("calls")
    region = Path("/dev/shm" + KEY)
    region.write_bytes(bytes(SIZE))
    try:
        with target(root, "--allow-shared-memory", "--triton-compat") as started:
            yield started
    finally:
        region.unlink()


def inputs(api: Any) -> list[Any]:
    made = [api.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for tensor in made:
        tensor.set_data_from_numpy(ADDEND[None])
    return made


class Kit:
    """What differs between the forms of the client."""

    def __init__(self, form: str, client: Any) -> None:
        self.client = client
        self.api = FORMS[form]
        self.is_grpc = form.startswith("grpc")
        # HTTP's answers are JSON; gRPC's can be had so.
        self.json: dict[str, Any] = {"as_json": True} if self.is_grpc else {}

    async def ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Calls a method, and waits for its answer where it gives one to wait for."""
        answer = getattr(self.client, name)(*arguments, **named)
        return await answer if inspect.isawaitable(answer) else answer

    async def read(self, name: str, *arguments: Any, **named: Any) -> Any:
        """As ``ask``, for a call whose answer is a document."""
        return await self.ask(name, *arguments, **named, **self.json)


Call = Callable[[Kit], Any]


async def live(kit: Kit) -> None:
    assert await kit.ask("is_server_live") is True


async def ready(kit: Kit) -> None:
    assert await kit.ask("is_server_ready") is True


async def model_ready(kit: Kit) -> None:
    assert await kit.ask("is_model_ready", "simple") is True
    assert await kit.ask("is_model_ready", "simple", "1") is True
    assert await kit.ask("is_model_ready", "nobody") is False


async def server_metadata(kit: Kit) -> None:
    found = await kit.read("get_server_metadata")
    assert found["name"] == "triton"
    assert "system_shared_memory" in found["extensions"]


async def model_metadata(kit: Kit) -> None:
    found = await kit.read("get_model_metadata", "simple")
    assert [tensor["name"] for tensor in found["inputs"]] == ["INPUT0", "INPUT1"]
    assert found["versions"] == ["1"]


async def model_config(kit: Kit) -> None:
    found = await kit.read("get_model_config", "simple")
    assert found.get("config", found)["max_batch_size"] == 8


async def index(kit: Kit) -> None:
    found = await kit.read("get_model_repository_index")
    lines = found["models"] if kit.is_grpc else found
    states = {line["name"]: line.get("state") for line in lines}
    assert (states["simple"], states["broken"]) == ("READY", "UNAVAILABLE")


async def load(kit: Kit) -> None:
    await kit.ask("load_model", "simple", config='{"max_batch_size": 2}')
    found = await kit.read("get_model_config", "simple")
    assert found.get("config", found)["max_batch_size"] == 2
    await kit.ask("load_model", "simple")
    found = await kit.read("get_model_config", "simple")
    assert found.get("config", found)["max_batch_size"] == 8
    with pytest.raises(InferenceServerException, match="files are not taken"):
        await kit.ask("load_model", "simple", config="{}", files={"file:1/model.onnx": b"x"})


async def unload(kit: Kit) -> None:
    await kit.ask("unload_model", "tiny")
    assert await kit.ask("is_model_ready", "tiny") is False
    await kit.ask("load_model", "tiny")
    assert await kit.ask("is_model_ready", "tiny") is True


async def statistics(kit: Kit) -> None:
    await kit.ask("infer", "simple", inputs(kit.api))
    found = await kit.read("get_inference_statistics", "simple")
    (line,) = found["model_stats"]
    assert int(line["inference_stats"]["success"]["count"]) >= 1


async def read_trace(kit: Kit) -> None:
    found = await kit.read("get_trace_settings")
    assert "trace_level" in found.get("settings", found)


async def write_trace(kit: Kit) -> None:
    await kit.read("update_trace_settings", settings={"trace_level": ["OFF"]})
    with pytest.raises(InferenceServerException, match="chosen when the server starts"):
        await kit.read("update_trace_settings", settings={"trace_level": ["TIMESTAMPS"]})


async def read_log(kit: Kit) -> None:
    found = await kit.read("get_log_settings")
    assert "log_verbose_level" in found.get("settings", found)


async def write_log(kit: Kit) -> None:
    for level in (1, 0):
        found = await kit.read("update_log_settings", settings={"log_verbose_level": level})
        shown = found.get("settings", found)["log_verbose_level"]
        assert (shown["uint32_param"] if kit.is_grpc else shown) == level


async def system_memory(kit: Kit) -> None:
    """Registers, looks, uses, unregisters."""
    await kit.ask("register_system_shared_memory", "region", KEY, SIZE)
    try:
        found = await kit.read("get_system_shared_memory_status", "region")
        (line,) = found["regions"].values() if kit.is_grpc else found
        assert (line["key"], int(line["byte_size"])) == (KEY, SIZE)
        tensors = inputs(kit.api)
        for tensor in tensors:
            tensor.set_shared_memory("region", 64)
        output = kit.api.InferRequestedOutput("OUTPUT0")
        answer = await kit.ask("infer", "simple", tensors, outputs=[output])
        assert (answer.as_numpy("OUTPUT0") == 0).all()
    finally:
        await kit.ask("unregister_system_shared_memory", "region")
    found = await kit.read("get_system_shared_memory_status")
    assert not (found.get("regions") if kit.is_grpc else found)


async def cuda_memory(kit: Kit) -> None:
    found = await kit.read("get_cuda_shared_memory_status")
    assert not (found.get("regions") if kit.is_grpc else found)
    handle = b"AAAA"
    with pytest.raises(InferenceServerException, match="GPUs not supported"):
        await kit.ask("register_cuda_shared_memory", "region", handle, 0, SIZE)
    await kit.ask("unregister_cuda_shared_memory", "region")
    await kit.ask("unregister_cuda_shared_memory")


async def infer(kit: Kit) -> None:
    answer = await kit.ask("infer", "simple", inputs(kit.api), request_id="7", model_version="1")
    assert (answer.as_numpy("OUTPUT0") == ADDEND * 2).all()
    response = answer.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "7"
    with pytest.raises(InferenceServerException, match="unknown model"):
        await kit.ask("infer", "nobody", inputs(kit.api))


async def async_infer(kit: Kit) -> None:
    if not kit.is_grpc:
        answer = kit.client.async_infer("simple", inputs(kit.api)).get_result()
        assert (answer.as_numpy("OUTPUT1") == 0).all()
        return
    answers: queue.Queue[Any] = queue.Queue()
    kit.client.async_infer(
        "simple", inputs(kit.api), lambda result, error: answers.put((result, error))
    )
    answer, error = answers.get(timeout=10)
    assert error is None
    assert (answer.as_numpy("OUTPUT1") == 0).all()
    slow = kit.api.InferInput("x", [2], "FP32")
    slow.set_data_from_numpy(np.float32([1, 2]))
    began = kit.client.async_infer(
        "slow", [slow], lambda result, error: answers.put((result, error))
    )
    began.cancel()
    answer, error = answers.get(timeout=SLOW_MS / 100)
    assert (answer, error.status()) == (None, "StatusCode.CANCELLED")


async def stream(kit: Kit) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    kit.client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(3):
        kit.client.async_stream_infer("simple", inputs(kit.api), request_id=str(number))
    kit.client.stop_stream()
    for number in range(3):
        answer, error = answers.get(timeout=10)
        assert error is None
        assert answer.get_response().id == str(number)


async def stream_infer(kit: Kit) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"model_name": "simple", "inputs": inputs(kit.api), "request_id": str(number)}

    ids = []
    async for answer, error in kit.client.stream_infer(requests()):
        assert error is None
        ids.append(answer.get_response().id)
    assert ids == ["0", "1", "2"]


async def bodies(kit: Kit) -> None:
    """The two static methods by which other libraries send what this client would."""
    body, length = kit.client.generate_request_body(inputs(kit.api))
    answer = await kit.ask("infer", "simple", inputs(kit.api))
    assert length < len(body)
    document = b'{"model_name": "simple", "outputs": []}'
    parsed = kit.client.parse_response_body(document)
    assert parsed.get_response()["model_name"] == answer.get_response()["model_name"]


async def plugins(kit: Kit) -> None:
    """A plugin adds a header to each call."""

    class Header:
        calls = 0

        def __call__(self, request: Any) -> None:
            self.calls += 1
            request.headers["x-who"] = "me"

    plugin = Header()
    kit.client.register_plugin(plugin)
    assert kit.client.plugin() is plugin
    assert await kit.ask("is_server_live") is True
    kit.client.unregister_plugin()
    assert plugin.calls == 1


async def closed(kit: Kit) -> None:
    """Every test closes its client."""


MEMORY = ("get_{}_shared_memory_status", "register_{}_shared_memory", "unregister_{}_shared_memory")
CALLS: dict[str, Call] = {
    "is_server_live": live,
    "is_server_ready": ready,
    "is_model_ready": model_ready,
    "get_server_metadata": server_metadata,
    "get_model_metadata": model_metadata,
    "get_model_config": model_config,
    "get_model_repository_index": index,
    "load_model": load,
    "unload_model": unload,
    "get_inference_statistics": statistics,
    "get_trace_settings": read_trace,
    "update_trace_settings": write_trace,
    "get_log_settings": read_log,
    "update_log_settings": write_log,
    **dict.fromkeys((name.format("system") for name in MEMORY), system_memory),
    **dict.fromkeys((name.format("cuda") for name in MEMORY), cuda_memory),
    "infer": infer,
    "async_infer": async_infer,
    **dict.fromkeys(("start_stream", "async_stream_infer", "stop_stream"), stream),
    "stream_infer": stream_infer,
    **dict.fromkeys(("generate_request_body", "parse_response_body"), bodies),
    **dict.fromkeys(("register_plugin", "plugin", "unregister_plugin"), plugins),
    "close": closed,
}


def methods(form: str) -> list[str]:
    """The public methods of one form of the client."""
    client = FORMS[form].InferenceServerClient
    return [name for name in dir(client) if not name.startswith("_")]


def test_no_call_is_left_out() -> None:
    found = {name for form in FORMS for name in methods(form)}
    assert found == CALLS.keys()


@pytest.mark.parametrize(
    ("form", "call"),
    [
        pytest.param(form, call, id=f"{form}-{call.__name__}")
        for form in FORMS
        for call in dict.fromkeys(CALLS[name] for name in methods(form) if name in CALLS)
    ],
)
def test_call(server: Target, form: str, call: Call) -> None:
    address = server.server.grpc if form.startswith("grpc") else server.server.http

    async def run() -> None:
        client = FORMS[form].InferenceServerClient(address)
        try:
            await call(Kit(form, client))
        finally:
            ended = client.close()
            if inspect.isawaitable(ended):
                await ended

    asyncio.run(run())
