"""Python models through a real server: allowed, and not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import ServerProcess

CODE = """
import numpy as np
from crossfade.runtimes.core.model import Signature, TensorSpec

class Model:
    def __init__(self, artifact):
        x, y = (TensorSpec(n, "FP32", (-1, 2)) for n in "xy")
        self.signatures = {"serving_default": Signature.derive([x], [y])}

    def run(self, inputs, signature, outputs):
        x = inputs["x"]
        if (x < 0).any():
            raise ValueError(f"{x} is the secret")
        return {"y": np.sqrt(x)}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    version = tmp_path / "models" / "roots" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(CODE)
    for path in (tmp_path / "models").rglob("*"):
        path.chmod(0o755)
    return tmp_path / "models"


def infer(server: ServerProcess, x: list[list[float]]) -> list[list[float]]:
    tensor = triton.InferInput("x", [len(x), 2], "FP32")
    tensor.set_data_from_numpy(np.float32(x))
    with triton.InferenceServerClient(server.grpc) as client:
        found: list[list[float]] = client.infer("roots", [tensor]).as_numpy("y").tolist()
    return found


def test_allowed(repository: Path) -> None:
    server = ServerProcess(
        "--model-repository", str(repository), "--allow-python-models", str(repository)
    )
    assert infer(server, [[4, 9]]) == [[2, 3]]
    with pytest.raises(triton.InferenceServerException, match="quote the id") as failed:
        infer(server, [[-1, 1]])
    assert failed.value.status() == "StatusCode.INTERNAL"
    assert "secret" not in str(failed.value)
    assert any("is the secret" in line for line in server.raw)
    assert infer(server, [[1, 1]]) == [[1, 1]]
    assert server.stop() == 0


@pytest.mark.parametrize("others", [False, True])
def test_not_allowed(repository: Path, tmp_path: Path, others: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    allowed = ("--allow-python-models", str(tmp_path / "elsewhere")) if others else ()
    server = ServerProcess("--model-repository", str(repository), *allowed)
    with triton.InferenceServerClient(server.grpc) as client:
        (model,) = client.get_model_repository_index().models
    assert model.state == "UNAVAILABLE"
    assert "--allow-python-models" in model.reason
    assert str(tmp_path) not in model.reason
    assert server.stop() == 0


def test_a_folder_behind_a_url_is_never_allowed(repository: Path, tmp_path: Path) -> None:
    """Not even where its copy lies in a folder that is."""
    cache = tmp_path / "cache"
    cache.mkdir()
    server = ServerProcess(
        *("--model-repository", f"file://{repository}", "--cache", str(cache)),
        *("--allow-python-models", str(cache), "--allow-python-models", str(repository)),
    )
    with triton.InferenceServerClient(server.grpc) as client:
        (model,) = client.get_model_repository_index().models
    assert "was copied from a URL" in model.reason
    assert server.stop() == 0
