"""Builds the wheel of this tree, for the tests that look at it or install it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("serving", "runtimes", "ensemble", "training", "deploy", "benchmarks")


def build(folder: Path) -> Path:
    """Builds from a copy: a build folder in the tree would bring back what was deleted."""
    pytest.importorskip("build", reason="build is not installed (crossfade[dev])")
    copy = folder / "tree"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("crossfade", *FOLDERS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=copy)
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str | Path, cwd: Path, path: Path | None = None, timeout_s: float = 110) -> str:
    """Runs a program without this process's Python paths; returns what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
