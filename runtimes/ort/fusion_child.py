"""The process that fuses graphs: ``python -m crossfade.runtimes.ort.fusion_child FOLDER``.

It reads branches as JSON from standard input and prints one JSON object: ``fused``, ``refused``
(with the reason) or ``missing``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.fusing import Branch
from crossfade.runtimes.ort.fusion import FILE
from crossfade.runtimes.reason import one_line

_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Fuses once; returns the exit code."""
    # Die with the server, however it ends; and give way to what it answers meanwhile.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(10)
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    with channel:
        json.dump(_answer(Path(sys.argv[1]), json.load(sys.stdin)), channel)
    return 0


def _answer(folder: Path, job: list[dict[str, Any]]) -> dict[str, Any]:
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnx_ir")):
        return {"missing": True}
    from crossfade.runtimes.ort.fusion_graph import fuse_graphs

    branches = [Branch(Path(b["path"]), b["inputs"], b["outputs"]) for b in job]
    try:
        return {"fused": fuse_graphs(branches, folder / FILE)}
    except FailedPrecondition as error:
        return {"refused": error.message}
    except Exception as error:
        return {"refused": f"the graphs cannot be merged: {one_line(error)}"}


if __name__ == "__main__":
    sys.exit(main())
