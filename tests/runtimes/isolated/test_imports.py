"""A worker may run where nothing of the server's is installed: it imports next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from crossfade.runtimes import registry

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
from crossfade.runtimes.isolated import arena, frames, limits, signatures
import importlib
module, _, name = sys.argv[1].partition(":")
runtime = getattr(importlib.import_module(module), name)()
setup = {"runtime": sys.argv[1], "options": json.loads(sys.argv[2]), "options_checked": True,
         "path": "/nowhere", "name": "m", "version": 1, "instances": 1}
try:
    worker._load(setup)
except Exception as error:
    print(type(error).__name__, file=sys.stderr)
after = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))))
"""
LIBRARY = {
    "onnxruntime_onnx": {"onnxruntime"},
    "tflite": {"ai_edge_litert", "flatbuffers"},
    "tensorflow_savedmodel": set(),  # a folder that is no SavedModel needs no TensorFlow
}


@pytest.mark.parametrize("platform", sorted(LIBRARY))
def test_a_worker_needs_numpy_and_the_runtimes_library_alone(platform: str) -> None:
    from pathlib import Path

    from crossfade.runtimes.core.model import Artifact
    from crossfade.runtimes.isolated.runtime import Limits, task

    made = task(platform, Artifact(Path("nowhere"), "m", 1), Limits())
    assert made.options_checked
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, registry.target(platform), json.dumps(dict(made.options))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "LoadFailed" in done.stderr, "it got as far as the file, with options read"
    assert set(json.loads(done.stdout)) <= ALLOWED | LIBRARY[platform]
