"""Models on a GPU behind a real server, called by unmodified ``tritonclient``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests import gpu
from tests.conftest import ServerProcess

pytest.importorskip("onnx")
from tests.runtimes import onnx_models as om

pytestmark = pytest.mark.gpu
LIMITED = "{cuda: {gpu_mem_limit: 67108864}}"


@pytest.fixture
def server(tmp_path: Path, serve: Callable[..., ServerProcess]) -> ServerProcess:
    def add(name: str, content: bytes, provider: str) -> None:
        version = tmp_path / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(content)
        (version.parent / "model.yaml").write_text(
            f"options: {{execution_providers: [{provider}]}}\n"
        )

    add("on_gpu", om.convolution(), "cuda")
    add("on_cpu", om.convolution(), "cpu")
    add("limited", om.expand(), LIMITED)
    add("heavy", om.heavy(256), "cuda")
    add("nowhere", om.convolution(), "{cuda: {device_id: 99}}")
    models = ("on_gpu", "on_cpu", "limited", "nowhere")
    loads = [argument for name in models for argument in ("--load-model", name)]
    return serve("--model-repository", tmp_path, "--model-control-mode", "explicit", *loads)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as made:
        yield made


def infer(
    client: triton.InferenceServerClient, model: str, name: str, dtype: str, array: np.ndarray
) -> np.ndarray:
    given = triton.InferInput(name, list(array.shape), dtype)
    given.set_data_from_numpy(array)
    answer: np.ndarray = client.infer(model, [given]).as_numpy("y")
    return answer


def test_answers_as_the_cpu_does(
    client: triton.InferenceServerClient, server: ServerProcess
) -> None:
    placed = server.wait_for("nodes by execution provider", model="on_gpu")
    assert placed["nodes"].keys() == {"CUDAExecutionProvider"}
    for rows in (1, 8, 32):
        x = np.random.default_rng(rows).normal(size=(rows, 3, 16, 16)).astype(np.float32)
        on_gpu, on_cpu = (infer(client, name, "x", "FP32", x) for name in ("on_gpu", "on_cpu"))
        np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-3)


def test_convolutions_are_not_stacked_of_themselves(server: ServerProcess) -> None:
    """Every change of the batch size makes each of them build its plan anew."""
    assert server.wait_for("auto batching", model="on_gpu")["max_size"] == 1


def test_no_memory_is_said_and_the_next_call_is_answered(
    client: triton.InferenceServerClient,
) -> None:
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="not enough memory") as refused:
            infer(client, "limited", "n", "INT64", np.array([1 << 13, 1 << 13]))
        assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert infer(client, "limited", "n", "INT64", np.array([2, 3])).sum() == 6


def test_a_device_that_is_not_there_is_the_models_reason(
    client: triton.InferenceServerClient,
) -> None:
    assert not client.is_model_ready("nowhere")
    (reason,) = [
        model.reason for model in client.get_model_repository_index().models if model.reason
    ]
    assert "Invalid device ID: 99" in reason
    assert ".cc" not in reason


def test_unloading_gives_the_memory_of_the_gpu_back(client: triton.InferenceServerClient) -> None:
    x = np.ones((4, 256), np.float32)
    idle: list[int] = []
    for _ in range(3):
        client.load_model("heavy")
        infer(client, "heavy", "x", "FP32", x)
        loaded = gpu.used_mib()
        client.unload_model("heavy")  # answers at once; the version is closed a moment later
        end_s = time.monotonic() + 10
        while gpu.used_mib() > loaded - 256 and time.monotonic() < end_s:
            time.sleep(0.1)
        idle.append(gpu.used_mib())
        assert idle[-1] <= loaded - 256
    assert max(idle) <= idle[0] + 32
