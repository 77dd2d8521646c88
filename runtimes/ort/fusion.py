"""Several ONNX models that are fed the same, as one graph that computes what they share once.

The graphs are merged in a process of its own: it takes seconds, holds both models in memory and
is native code in parts; the server imports none of it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import FailedPrecondition, LoadFailed, MissingExtra
from crossfade.runtimes.fusing import Branch, Fused

FILE: Final = "model.onnx"
TIMEOUT_S: Final = 300.0
EXTRA: Final = "fusion"


def fuse(branches: Sequence[Branch], folder: Path, timeout_s: float = TIMEOUT_S) -> Fused:
    """Fuses models into ``folder``/model.onnx, in another process. Thread-safe.

    Args:
        branches: two or more.
        folder: empty, and writable.
        timeout_s: after which it is given up.

    Raises:
        MissingExtra: the extra ``[fusion]`` is not installed.
        FailedPrecondition: these models cannot be one graph, and why.
        LoadFailed: the other process crashed, or took too long.
    """
    job = [{**dataclasses.asdict(branch), "path": str(branch.path)} for branch in branches]
    command = [sys.executable, "-m", "crossfade.runtimes.ort.fusion_child", str(folder)]
    try:
        done = subprocess.run(
            command, input=json.dumps(job).encode(), capture_output=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout or b"{}")
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"fusing took longer than {timeout_s:g} s") from None
    except ValueError:
        answer = {}
    if "missing" in answer:
        raise MissingExtra(EXTRA, "fusing an ensemble's members")
    if "refused" in answer:
        raise FailedPrecondition(answer["refused"])
    if "fused" not in answer:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise LoadFailed(
            f"the process that fuses ended with {done.returncode}: {''.join(said[-1:])[:200]}"
        )
    fused = answer["fused"]
    return Fused(folder / FILE, tuple(fused.pop("outputs")), **fused)
