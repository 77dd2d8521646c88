"""Isolation and the probe with platforms that have something special about them."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from tests.conftest import ServerProcess
from tests.e2e.test_isolation import wait_until, workers

Serve = Callable[..., ServerProcess]
PYTHON = """
import ctypes
import numpy as np
from crossfade.runtimes.core.model import Signature, TensorSpec

class Model:
    def __init__(self, artifact):
        x, y = (TensorSpec(n, "FP32", (-1, 2)) for n in "xy")
        self.signatures = {"serving_default": Signature.derive([x], [y])}
        self.add = artifact.options["add"]

    def run(self, inputs, signature, outputs):
        if (inputs["x"] == 13).any():
            ctypes.string_at(0)
        return {"y": inputs["x"] + self.add}
"""


def model(models: Path, name: str, files: dict[str, bytes], **config: Any) -> None:
    folder = models / name / "1"
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (models / name / "model.yaml").write_text(yaml.safe_dump(config))
    for path in (models, *(models / name).rglob("*"), models / name):
        path.chmod(0o755)


def infer(server: ServerProcess, name: str, x: list[list[float]]) -> list[list[float]]:
    array = np.array(x, np.float32)
    tensor = triton.InferInput("x", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    with triton.InferenceServerClient(server.grpc) as client:
        found: list[list[float]] = client.infer(name, [tensor]).as_numpy("y").tolist()
    return found


def reasons(server: ServerProcess) -> dict[str, str]:
    with triton.InferenceServerClient(server.grpc) as client:
        index = client.get_model_repository_index(as_json=True)["models"]
    return {line["name"]: line.get("reason", "") for line in index}


def test_a_python_model_that_segfaults_costs_its_worker_alone(serve: Serve, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("frail", "steady"):
        model(models, name, {"model.py": PYTHON.encode()}, isolation="process", options={"add": 1})
    server = serve("--model-repository", models, "--allow-python-models", models)
    assert len(workers(server)) == 2
    assert infer(server, "frail", [[1, 2]]) == [[2, 3]]
    with pytest.raises(InferenceServerException) as told:
        infer(server, "frail", [[13, 0]])
    assert told.value.status() == "StatusCode.UNAVAILABLE"
    assert infer(server, "steady", [[1, 2]]) == [[2, 3]]

    def is_back() -> bool:
        try:
            return infer(server, "frail", [[1, 2]]) == [[2, 3]]
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            return False

    wait_until(is_back)
    line = server.wait_for("worker process is started again", model="frail")
    assert "SIGSEGV" in line["reason"]


def test_a_worker_trusts_what_its_server_trusts_and_no_more(serve: Serve, tmp_path: Path) -> None:
    """Neither the model's own configuration nor its environment can add a folder."""
    models, other = tmp_path / "models", tmp_path / "other"
    other.mkdir()
    model(models, "m", {"model.py": PYTHON.encode()}, isolation="process", options={"add": 1})
    model(
        models,
        "sly",
        {"model.py": PYTHON.encode()},
        isolation="process",
        options={"add": 1, "trusted": [str(models)]},
    )
    for allowed in ((), ("--allow-python-models", other)):
        server = serve("--model-repository", models, *allowed)
        told = reasons(server)
        assert all("--allow-python-models" in told[name] for name in ("m", "sly"))
        assert not any(str(tmp_path) in reason for reason in told.values())
        assert server.stop() == 0


def test_what_runs_in_another_server_is_not_isolated(serve: Serve, tmp_path: Path) -> None:
    options = {"protocol": "open_inference_http", "url": "http://127.0.0.1:9"}
    model(tmp_path, "far", {}, platform="remote", isolation="process", options=options)
    server = serve("--model-repository", tmp_path)
    assert "remove isolation" in reasons(server)["far"]


def test_an_isolated_quantised_model_takes_pictures(
    serve: Serve, tmp_path: Path, shared: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    flowers = shared / "automl-vision-edge" / "flowers"
    files = {name: (flowers / name).read_bytes() for name in ("model.tflite", "dict.txt")}
    processing = {
        "task": "classification",
        "preprocess": {"name": "image_bytes"},
        "postprocess": {"top_k": 1},
    }
    model(tmp_path, "flowers", files, isolation="process", **processing)
    server = serve("--model-repository", tmp_path, "--probe", "auto")
    assert len(workers(server)) == 1
    rose = next((flowers / "images").glob("rose*.jpg"))
    body = {"instances": [{"image_bytes": {"b64": base64.b64encode(rose.read_bytes()).decode()}}]}
    request = urllib.request.Request(
        f"http://{server.http}/v1/models/flowers:predict", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        (prediction,) = json.load(answer)["predictions"]
    assert prediction["labels"] == ["roses"]
    assert 0.5 < prediction["scores"][0] <= 1  # real, not the stored 0..255


@pytest.mark.timeout(300)
@pytest.mark.parametrize("isolated", [True, False])
def test_a_pytorch_program_in_a_worker_and_under_the_probe(
    serve: Serve, tmp_path: Path, isolated: bool
) -> None:
    torch = pytest.importorskip("torch")

    class Doubling(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x * 2

    batch = torch.export.Dim("batch")
    program = torch.export.export(Doubling(), (torch.zeros(2, 2),), dynamic_shapes=({0: batch},))
    config: dict[str, Any] = {"isolation": {"load_timeout_s": 120}} if isolated else {}
    model(tmp_path / "models", "m", {}, options={"output_names": ["y"]}, **config)
    torch.export.save(program, tmp_path / "models" / "m" / "1" / "model.pt2")
    server = serve(
        *("--model-repository", tmp_path / "models", "--cache", tmp_path / "cache"),
        *("--probe", "auto"),
    )
    assert infer(server, "m", [[1, 2]]) == [[2, 4]]
    assert len(workers(server)) == int(isolated)
    assert isolated or server.wait_for("tried in a process of its own", model="m")


@pytest.mark.parametrize("config", [{}, {"isolation": "process"}])
def test_an_engine_says_what_is_missing_wherever_it_is_loaded(
    serve: Serve, tmp_path: Path, config: dict[str, Any]
) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("TensorRT is here")
    model(tmp_path, "m", {"model.plan": b"no engine"}, **config)
    server = serve("--model-repository", tmp_path, "--probe", "auto")
    assert "crossfade[tensorrt]" in reasons(server)["m"]
