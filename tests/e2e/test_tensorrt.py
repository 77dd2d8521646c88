"""An engine through a real server, which finds a TensorRT and a CUDA made here on its path."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.conftest import ROOT, ServerProcess
from tests.runtimes.fake_tensorrt import plan

MODULES = {
    "cuda/bindings/runtime.py": """
        from tests.runtimes.fake_cuda import FakeCuda
        sys.modules[__name__] = FakeCuda()
    """,
    "tensorrt.py": """
        from cuda.bindings import runtime
        from tests.runtimes.fake_tensorrt import FakeTensorRt
        sys.modules[__name__] = FakeTensorRt(runtime)
    """,
}
CONFIG = """
platform: "tensorrt_plan"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 3 }
output { name: "y" data_type: TYPE_FP32 dims: 3 }
instance_group { count: 2 }
"""
ENGINES = {
    "affine": plan(),
    "of_another_gpu": plan(compute="8.6"),
    "newer": plan(version="11.4.0"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    modules, models = (tmp_path_factory.mktemp(name) for name in ("modules", "models"))
    for name, text in MODULES.items():
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_text("import sys\n" + "\n".join(map(str.strip, text.splitlines())))
    for name, engine in ENGINES.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / "model.plan").write_bytes(engine)
    (models / "affine" / "config.pbtxt").write_text(CONFIG)
    path = os.pathsep.join((str(modules), str(ROOT)))
    found = ServerProcess("--model-repository", str(models), environment={"PYTHONPATH": path})
    yield found
    assert found.stop() == 0


@pytest.fixture
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as found:
        yield found


def test_rows_of_every_number(client: triton.InferenceServerClient) -> None:
    for rows in (1, 8, 3, 8, 1):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        tensor = triton.InferInput("x", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        got = client.infer("affine", [tensor]).as_numpy("y")
        np.testing.assert_array_equal(got, 2 * x + 1)


def test_more_rows_than_the_engine_was_built_for(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", (9, 3), "FP32")
    tensor.set_data_from_numpy(np.zeros((9, 3), np.float32))
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        client.infer("affine", [tensor])


def test_it_is_what_triton_calls_it(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("affine", as_json=True)["config"]
    assert (config["platform"], config["backend"]) == ("tensorrt_plan", "tensorrt")
    assert client.get_model_metadata("affine").platform == "tensorrt_plan"


def test_engines_of_elsewhere_say_what_to_do(client: triton.InferenceServerClient) -> None:
    models = client.get_model_repository_index(as_json=True)["models"]
    reasons = {m["name"]: m.get("reason", "") for m in models}
    assert "compute capability 8.6, this one has 9.0" in reasons["of_another_gpu"]
    assert "built with a newer TensorRT than the 10.16.1 here" in reasons["newer"]
    assert all("build it again" in reasons[name] for name in ("of_another_gpu", "newer"))
