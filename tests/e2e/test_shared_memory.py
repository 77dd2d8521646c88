"""System shared memory, as ``tritonclient.utils.shared_memory`` uses it, and hostile use of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from tests.e2e.hostile import Target, assert_clean, document, target

LEFT = np.arange(16, dtype=np.int32)[None]
RIGHT = np.full((1, 16), 3, dtype=np.int32)
APIS = {"grpc": grpc_client, "http": http_client}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("memory")
    with target(root, "--allow-shared-memory", "--shared-memory-bytes", "4194304") as started:
        yield started


@pytest.fixture(params=["grpc", "http"])
def api(request: pytest.FixtureRequest) -> Any:
    return APIS[request.param]


@pytest.fixture
def client(server: Target, api: Any) -> Iterator[Any]:
    address = server.server.grpc if api is grpc_client else server.server.http
    with api.InferenceServerClient(address) as made:
        made.unregister_system_shared_memory()
        made.unregister_cuda_shared_memory()
        yield made
        made.unregister_system_shared_memory()


@pytest.fixture
def handle() -> Iterator[Any]:
    made = shm.create_shared_memory_region("region", f"/cf_client_{uuid.uuid4().hex}", 4096)
    yield made
    shm.destroy_shared_memory_region(made)


def key_of(handle: Any) -> str:
    return str(handle._shm_key)


def tensors(api: Any) -> list[Any]:
    made = []
    for offset, name in ((0, "INPUT0"), (64, "INPUT1")):
        tensor = api.InferInput(name, [1, 16], "INT32")
        tensor.set_shared_memory("region", 64, offset)
        made.append(tensor)
    return made


def test_inputs_and_outputs(client: Any, api: Any, handle: Any) -> None:
    client.register_system_shared_memory("region", key_of(handle), 4096)
    shm.set_shared_memory_region(handle, [LEFT, RIGHT])
    sums = api.InferRequestedOutput("OUTPUT0")
    sums.set_shared_memory("region", 128, 1024)
    answer = client.infer(
        "simple", tensors(api), outputs=[sums, api.InferRequestedOutput("OUTPUT1")]
    )
    assert (shm.get_contents_as_numpy(handle, np.int32, [1, 16], 1024) == LEFT + RIGHT).all()
    assert (answer.as_numpy("OUTPUT1") == LEFT - RIGHT).all()
    response = answer.get_response(**({"as_json": True} if api is grpc_client else {}))
    output = response["outputs"][0]
    assert "shared_memory_region" in output["parameters"]
    assert "64" in json.dumps(output["parameters"]["shared_memory_byte_size"])
    mixed = tensors(api)
    mixed[0] = api.InferInput("INPUT0", [1, 16], "INT32")
    mixed[0].set_data_from_numpy(LEFT)
    assert (client.infer("simple", mixed).as_numpy("OUTPUT0") == LEFT + RIGHT).all()


def test_a_region_that_begins_within(client: Any, api: Any, handle: Any) -> None:
    client.register_system_shared_memory("region", key_of(handle), 128, 256)
    shm.set_shared_memory_region(handle, [LEFT, RIGHT], 256)
    assert (client.infer("simple", tensors(api)).as_numpy("OUTPUT1") == LEFT - RIGHT).all()


def test_asyncio(server: Target, api: Any, handle: Any) -> None:
    kind = grpc_aio if api is grpc_client else http_aio
    address = server.server.grpc if api is grpc_client else server.server.http

    async def infer() -> None:
        async with kind.InferenceServerClient(address) as client:
            await client.register_system_shared_memory("region", key_of(handle), 4096)
            shm.set_shared_memory_region(handle, [LEFT, RIGHT])
            wanted = api.InferRequestedOutput("OUTPUT1")
            wanted.set_shared_memory("region", 64, 2048)
            await client.infer("simple", tensors(api), outputs=[wanted])
            await client.unregister_system_shared_memory("region")

    asyncio.run(infer())
    assert (shm.get_contents_as_numpy(handle, np.int32, [1, 16], 2048) == LEFT - RIGHT).all()


def test_text(client: Any, api: Any, handle: Any) -> None:
    client.register_system_shared_memory("region", key_of(handle), 4096)
    packed = b"\x04\0\0\0rose\x05\0\0\0tulip"
    shm.set_shared_memory_region(handle, [np.frombuffer(packed, np.uint8)])
    tensor = api.InferInput("x", [1, 2], "BYTES")
    tensor.set_shared_memory("region", len(packed))
    name = client.get_model_metadata("text", **({"as_json": True} if api is grpc_client else {}))
    output = api.InferRequestedOutput(name["outputs"][0]["name"])
    output.set_shared_memory("region", 100, 1024)
    client.infer("text", [tensor], outputs=[output])
    found = shm.get_contents_as_numpy(handle, np.object_, [1, 2], 1024)
    assert found.tolist() == [[b"rose", b"tulip"]]


def test_status(client: Any, api: Any, handle: Any) -> None:
    client.register_system_shared_memory("region", key_of(handle), 64, 32)
    options = {"as_json": True} if api is grpc_client else {}
    for name in ("", "region"):
        found = client.get_system_shared_memory_status(name, **options)
        (line,) = found if api is http_client else found["regions"].values()
        assert (line["name"], line["key"]) == ("region", key_of(handle))
        assert (int(line["offset"]), int(line["byte_size"])) == (32, 64)
    client.unregister_system_shared_memory("region")
    client.unregister_system_shared_memory("region")
    assert not client.get_cuda_shared_memory_status(**options)


def refused(action: Any, status: str, *arguments: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        action(*arguments)
    assert status in str(caught.value.status()), caught.value
    assert_clean(str(caught.value.message()), ("GPUs",))


def test_row22_refusals(client: Any, api: Any, handle: Any, server: Target) -> None:
    def code(grpc: str, http: str) -> str:
        return grpc if api is grpc_client else http

    wrong, unknown = code("INVALID_ARGUMENT", "400"), code("NOT_FOUND", "404")
    register = client.register_system_shared_memory
    with server.survives():
        register("region", key_of(handle), 4096)
        refused(register, code("ALREADY_EXISTS", "409"), "region", key_of(handle), 64)
        for key in ("/../x", "/triton_python_backend_shm_region_1", "/cf_client_/../x", ""):
            refused(register, wrong, "other", key, 64)
        refused(register, unknown, "other", "/cf_client_nobody", 64)
        for size, offset in ((0, 0), (5000, 0), (64, 4090), (2**63, 2**63), (2**64 - 1, 1)):
            with pytest.raises(InferenceServerException):
                register("other", key_of(handle), size, offset)
        refused(client.get_system_shared_memory_status, unknown, "nobody")
        refused(client.get_cuda_shared_memory_status, unknown, "nobody")
        cuda = client.register_cuda_shared_memory
        refused(cuda, code("UNIMPLEMENTED", "501"), "gpu", b"AAAA", 0, 64)
        for region, size, offset, answer in (
            ("nobody", 64, 0, unknown),
            ("region", 64, 4090, wrong),
            ("region", 64, 2**63 - 1, wrong),
            ("region", 2**63 - 1, 2**63 - 1, wrong),
            ("region", 0, 0, wrong),
            ("region", 32, 0, wrong),
        ):
            given = tensors(api)
            given[1].set_shared_memory(region, size, offset)
            refused(client.infer, answer, "simple", given)
        small = api.InferRequestedOutput("OUTPUT0")
        small.set_shared_memory("region", 63)
        refused(lambda: client.infer("simple", tensors(api), outputs=[small]), wrong)


def test_row22_data_in_two_ways(server: Target, handle: Any) -> None:
    place = {"shared_memory_region": "region", "shared_memory_byte_size": 64}
    with http_client.InferenceServerClient(server.server.http) as client:
        client.register_system_shared_memory("region", key_of(handle), 4096)
        body = document()
        body["inputs"][0]["parameters"] = place
        assert "more than one way" in server.post("/v2/models/simple/infer", body).error
        client.unregister_system_shared_memory()


def test_it_is_advertised(client: Any, api: Any) -> None:
    found = client.get_server_metadata(**({"as_json": True} if api is grpc_client else {}))
    assert "system_shared_memory" in found["extensions"]
    assert "cuda_shared_memory" not in found["extensions"]
