"""A worker may run where nothing of the server's is installed: it imports next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated.runtime import Limits, task

# What the worker brings before the runtime's own library; beside these only that may come.
ALLOWED = {"crossfade", "numpy", "ml_dtypes", "_numpy_bootstrap"}
PROGRAM = """
import json, sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pydantic", "yaml", "grpc", "google", "orjson", "fsspec"}:
            raise ModuleNotFoundError(name)

before = {name.partition(".")[0] for name in sys.modules}
sys.meta_path.insert(0, Refuse())
import crossfade.runtimes.isolated.worker as worker
from crossfade.runtimes.isolated import arena, facts, frames, limits, signatures
setup = json.loads(sys.argv[1])
try:
    worker._load(setup)
except Exception as error:
    print(type(error).__name__, error, file=sys.stderr)
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))))
"""
# The file, and what of a runtime's library is imported on the way to it.
LIBRARY: dict[str, tuple[str, set[str]]] = {
    "onnxruntime_onnx": ("model.onnx", {"onnxruntime"}),
    "tflite": ("model.tflite", {"ai_edge_litert", "flatbuffers"}),
    "tensorflow_savedmodel": ("nowhere", set()),  # no SavedModel: TensorFlow is not asked for
    "torch": ("model.pt", set()),  # refused by its name: so is PyTorch
    "tensorrt_plan": ("model.plan", set()),
    "python": ("model.py", set()),
}
# A Python model's options are its own: nobody here could check them.
UNCHECKED = {"python"}
# Another server runs it; and the fake, which reads YAML, is for tests.
NEVER_ISOLATED = {"remote", "fake"}


def test_every_runtime_is_looked_at() -> None:
    assert registry.BUILT_IN.keys() == LIBRARY.keys() | NEVER_ISOLATED


@pytest.mark.parametrize("platform", sorted(LIBRARY))
def test_a_worker_needs_numpy_and_the_runtimes_library_alone(platform: str, tmp_path: Path) -> None:
    file, library = LIBRARY[platform]
    made = task(platform, Artifact(Path("/nowhere", file), "m", 1), Limits())
    assert made.options_checked == (platform not in UNCHECKED)
    setup = {
        "runtime": made.runtime,
        "options": dict(made.options),
        "options_checked": made.options_checked,
        "path": str(made.artifact.path),
        "name": "m",
        "version": 1,
        "instances": 1,
        "trusted": [str(tmp_path)],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(setup)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr.startswith("LoadFailed"), "it got as far as the file, with options read"
    assert set(json.loads(done.stdout)) <= ALLOWED | library
