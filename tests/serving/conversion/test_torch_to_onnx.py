"""A program of torch.export as an ONNX model, named as it is served."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact, Signature, TensorSpec
from crossfade.runtimes.ort.runtime import OnnxRuntime
from crossfade.serving.conversion import torch_to_onnx
from crossfade.serving.conversion.job import Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MAKE = """
import json, sys, torch
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
    torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 5), torch.nn.Softmax(dim=1),
).eval()
batch = torch.export.Dim("batch")
program = torch.export.export(net, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
torch.export.save(program, sys.argv[1])
rows = torch.linspace(-1, 1, 5 * 3 * 8 * 8).reshape(5, 3, 8, 8)
print(json.dumps(net(rows).detach().numpy().tolist()))
"""
CONVERT = """
import sys
from pathlib import Path
from tests.serving.conversion import test_torch_to_onnx as here
here.convert(Path(sys.argv[1]), Path(sys.argv[2]))
"""


class Described:
    """How a runtime of such programs describes the one above."""

    platform: ClassVar[str] = "torch"
    signatures: Mapping[str, Signature] = {
        "serving_default": Signature.derive(
            [TensorSpec("image", "FP32", (-1, 3, 8, 8))], [TensorSpec("scores", "FP32", (-1, 5))]
        )
    }

    def estimate(self, artifact: Artifact) -> int:
        return 0

    def load(self, artifact: Artifact) -> Any:
        return self

    def run(self, inputs: Any, signature: str, outputs: Sequence[str]) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def convert(source: Path, stage: Path) -> None:
    """To be run in a process of its own: PyTorch does not mix with other tests."""
    entry = registry.Entry(f"{__name__}:Described", ("*.pt2",))
    table = {**registry.BUILT_IN, "torch": entry}
    registry.entries = lambda: table  # type: ignore[assignment]
    (stage / "version").mkdir(parents=True)
    job = Job("convert", "net", str(source), "torch", {}, "onnx", str(stage))
    try:
        made = torch_to_onnx.convert(job, lambda text: None)
    except LoadFailed as error:
        sys.exit(error.message)
    assert "torch" in made.versions


def run(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    root = Path(__file__).parents[3]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=root, check=False, timeout=280
    )


def test_it_keeps_names_answers_and_a_free_batch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    made = run(MAKE, tmp_path / "model.pt2")
    assert made.returncode == 0, made.stderr
    done = run(CONVERT, tmp_path / "model.pt2", tmp_path / "stage")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "stage" / "version" / "model.onnx"
    session = OnnxRuntime().load(Artifact(file, "net", 1))
    signature = session.signatures["serving_default"]
    assert signature == Described.signatures["serving_default"]
    rows = np.linspace(-1, 1, 5 * 3 * 8 * 8, dtype=np.float32).reshape(5, 3, 8, 8)
    found = session.run({"image": rows}, "serving_default", ())["scores"]
    np.testing.assert_allclose(found, json.loads(made.stdout), atol=1e-5)
    session.close()


def test_what_is_no_program_is_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model.pt2").write_bytes(b"no program")
    done = run(CONVERT, tmp_path / "model.pt2", tmp_path / "stage")
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("PyTorch cannot export the model")
    assert str(tmp_path) not in said
