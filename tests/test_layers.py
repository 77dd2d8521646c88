"""What an import may bring with it: layers point down, heavy libraries wait for a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    *(
        "onnxruntime",
        "tensorflow",
        "ai_edge_litert",
        "torch",
        "sklearn",
        "onnx",
        "tensorrt",
        "cuda",
    ),
    *("tritonclient", "fsspec", "PIL", "sqlalchemy", "psycopg", "opentelemetry"),
}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after one statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    modules: list[str] = json.loads(done.stdout)
    return {name.partition(".")[0] for name in modules}


def test_a_server_imports_no_runtimes_library() -> None:
    """Whoever serves only ONNX models does not pay for TensorFlow, nor needs it installed."""
    found = loaded_by("import crossfade.serving.app.server, crossfade.serving.cli.main")
    assert {"crossfade", "grpc", "numpy"} <= found
    assert found & HEAVY == set()


def test_the_adapters_import_their_library_only_to_load_a_model() -> None:
    found = loaded_by(
        "from crossfade.runtimes import registry\n"
        "for platform in registry.BUILT_IN: registry.create(platform)"
    )
    assert found & HEAVY == set()


def test_fading_imports_its_database_only_to_open_one() -> None:
    modules = ("plan", "policy", "evidence", "records", "database")
    found = loaded_by("import " + ", ".join(f"crossfade.serving.fade.{name}" for name in modules))
    assert found & HEAVY == set()


def test_the_waist_is_narrow() -> None:
    """Standard library, numpy and its type of bfloat16; and short enough to be read at once."""
    found = loaded_by("import crossfade.runtimes.core.model, crossfade.runtimes.core.dtypes")
    others = found - set(sys.stdlib_module_names) - set(sys.builtin_module_names)
    installed = loaded_by("pass")
    assert others - installed <= {"crossfade", "numpy", "ml_dtypes", "_numpy_bootstrap"}
    files = (ROOT / "runtimes" / "core").glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) < 500


def test_imports_point_down_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout
