"""Models of other servers: a real server behind another one, over each of the protocols."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml

from crossfade.runtimes.core.dtypes import NUMPY
from tests.conftest import ServerProcess
from tests.runtimes import onnx_models

PREDICT = "/v1/projects/p/locations/r/endpoints/7:predict"
PROTOCOLS = (
    "open_inference_grpc",
    "open_inference_http",
    "tensorflow_serving_grpc",
    "tensorflow_serving_rest",
    "vertex",
)
# Every dtype; BYTES has names that say whether it is text, as JSON contracts ask.
TYPES = {
    **{name.lower(): name for name in NUMPY if name != "BYTES"},
    "text": "BYTES",
    "any_bytes": "BYTES",
}
# What the clients of these tests cannot send: NVIDIA's knows no dtype of numpy for it.
ON_VERTEX = ("types", "affine")
Serve = Callable[..., ServerProcess]


def far_repository(root: Path) -> Path:
    write(root / "affine" / "1" / "model.onnx", onnx_models.affine())
    inputs = [{"name": name, "dtype": dtype, "shape": [-1, 2]} for name, dtype in TYPES.items()]
    write(root / "types" / "1" / "fake.yaml", yaml.safe_dump({"inputs": inputs}).encode())
    slow = {"delay_ms": 3000, "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}]}
    write(root / "slow" / "1" / "fake.yaml", yaml.safe_dump(slow).encode())
    write(root / "slow" / "model.yaml", b"batching: {max_size: 1}\nwarmup: []\n")
    return root


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def on_vertex(model: str) -> dict[str, str]:
    return {
        "AIP_MODE": "PREDICTION",
        "AIP_PREDICT_ROUTE": PREDICT,
        "AIP_HEALTH_ROUTE": "/health",
    }


def start_far(repository: Path, *arguments: str) -> ServerProcess:
    return ServerProcess("--model-repository", str(repository), *arguments)


def declared(model: str) -> dict[str, Any]:
    """What has to be said to Vertex AI's contract, which says nothing itself."""
    if model == "affine":
        names = {"x": "FP32"}, {"y": "FP32", "m": "FP32"}
        return {
            side: [{"name": n, "dtype": d, "shape": [-1, 3]} for n, d in found.items()]
            for side, found in zip(("inputs", "outputs"), names, strict=True)
        }
    tensors = [{"name": n, "dtype": d, "shape": [-1, 2]} for n, d in TYPES.items()]
    inputs = [{**t, "encoding": "b64"} if t["name"] == "any_bytes" else t for t in tensors]
    return {"inputs": inputs, "outputs": tensors}


def place(far: ServerProcess, protocol: str, model: str, **more: Any) -> dict[str, Any]:
    url = far.grpc if protocol.endswith("grpc") else f"http://{far.http}"
    options = {"protocol": protocol, "url": url, "model": model, **more}
    if protocol == "vertex":
        options |= {"url": f"{url}{PREDICT}", **declared(model)}
    return options


def member(repository: Path, name: str, options: dict[str, Any], **more: Any) -> None:
    config = {"platform": "remote", "options": options, **more}
    write(repository / name / "model.yaml", yaml.safe_dump(config).encode())


def ask(server: str, model: str, inputs: dict[str, np.ndarray], **more: Any) -> Any:
    dtypes = {name: TYPES.get(name, "FP32") for name in inputs}
    asked = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), dtypes[name])
        tensor.set_data_from_numpy(array)
        asked.append(tensor)
    with triton.InferenceServerClient(server) as client:
        return client.infer(model, asked, **more)


def raw(answer: Any) -> dict[str, bytes]:
    """The outputs' bytes by name."""
    response = answer.get_response()
    names = [output.name for output in response.outputs]
    return dict(zip(names, response.raw_output_contents, strict=True))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = start_far(far_repository(tmp_path_factory.mktemp("far")))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def far_on_vertex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerProcess]]:
    """A server answers one model on Vertex AI: one for each."""
    root = far_repository(tmp_path_factory.mktemp("vertex"))
    servers = {
        model: ServerProcess(
            *("--model-repository", str(root), "--host", "127.0.0.1"),
            *("--vertex-ai-default-model", model),
            environment=on_vertex(model),
        )
        for model in ON_VERTEX
    }
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def near(
    far: ServerProcess,
    far_on_vertex: dict[str, ServerProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("near")
    for model, protocol in itertools.product(ON_VERTEX, PROTOCOLS):
        server = far_on_vertex[model] if protocol == "vertex" else far
        member(root, f"{model}.{protocol}", place(server, protocol, model))
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


def random_types(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, dtype in TYPES.items():
        kind = NUMPY[dtype].kind
        if dtype == "BYTES":
            texts = np.empty((rows, 2), object)
            texts.reshape(-1)[:] = (
                [f"é{n}\n\0".encode() for n in random.integers(0, 99, rows * 2)]
                if name == "text"
                else [random.bytes(n) for n in random.integers(0, 9, rows * 2)]
            )
            found[name] = texts
        elif kind == "b":
            found[name] = random.random((rows, 2)) < 0.5
        elif kind in "iu":
            limits = np.iinfo(NUMPY[dtype])
            found[name] = random.integers(
                limits.min, limits.max, (rows, 2), NUMPY[dtype], endpoint=True
            )
        else:
            found[name] = (random.normal(size=(rows, 2)) * 100).astype(NUMPY[dtype])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_answers_to_the_bit(
    far: ServerProcess, near: ServerProcess, protocol: str
) -> None:
    random = np.random.default_rng(8)
    for rows in (1, 3, 17):
        x = {"x": (random.normal(size=(rows, 3)) * 1e-3).astype(np.float32)}
        assert raw(ask(near.grpc, f"affine.{protocol}", x)) == raw(ask(far.grpc, "affine", x))
        inputs = random_types(random, rows)
        direct = raw(ask(far.grpc, "types", inputs))
        assert raw(ask(near.grpc, f"types.{protocol}", inputs)) == direct
        assert set(direct) == set(TYPES)
