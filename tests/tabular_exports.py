"""Stand-ins for AutoML Tabular exports, made once a session by the environment that runs them."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.isolated import environments
from tests import make_tabular_export

SCRIPT: Final = make_tabular_export.__file__
ENVIRONMENT: Final = "automl-tabular"
DATA: Final = {"classification": "titanic.csv", "regression": "housing.csv"}
Row = Mapping[str, str | None]


@functools.cache
def why_not() -> str:
    """Why none can be made here; empty where they can."""
    try:
        environments.interpreter(ENVIRONMENT)
    except LoadFailed as error:
        return error.message
    return ""


def make(task: str, data: Path, folder: Path) -> Path:
    """Makes an export; returns the folder that ``gsutil cp`` would have made."""
    root = folder / "model-3945289613018398669"
    inside = root / "tf-saved-model" / "2026-10-04T11:50:12.690567Z"
    _run("make", task, data, inside)
    return root


def answer(root: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """TensorFlow's own answer to rows, which it packs by itself."""
    (inside,) = (root / "tf-saved-model").iterdir()
    found: dict[str, Any] = json.loads(_run("answer", inside, stdin=json.dumps(rows)))
    return found


def _run(*arguments: str | Path, stdin: str = "") -> str:
    python = environments.interpreter(ENVIRONMENT)
    done = subprocess.run(
        [python, SCRIPT, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
