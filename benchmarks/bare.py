"""The limit: bare ONNX Runtime, measured like a server that costs nothing.

At concurrency c it runs on as many threads as a server would run inferences in parallel, and no
more: c, but at most `PARALLEL_RUNS`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from crossfade.benchmarks.processes import ServerError
from crossfade.benchmarks.session_settings import PARALLEL_RUNS
from crossfade.benchmarks.workspace import Workspace

NAME = "bare"
SETTINGS = f"ONNX Runtime in a loop on at most {PARALLEL_RUNS} threads, no server, batch of 1"
START_MARGIN_S = 60.0


@dataclass(frozen=True)
class BareWindow:
    """What bare ONNX Runtime did in a window.

    Attributes:
        duration_s: Length of the window.
        latencies_us: Of the inferences, ascending.
        cpu_us: CPU time of the whole process.
    """

    duration_s: float
    latencies_us: list[int]
    cpu_us: float


def run_bare(
    workspace: Workspace, model: str, concurrency: int, warmup_s: float, window_s: float
) -> BareWindow:
    """Run a model in a loop, in a process of its own.

    Raises:
        ServerError: It failed or hung.
    """
    command = [sys.executable, "-m", "crossfade.benchmarks.programs.bare_loop"]
    command += [f"--threads={min(concurrency, PARALLEL_RUNS)}"]
    command += [f"--warmup-s={warmup_s}", f"--window-s={window_s}", str(workspace.root), model]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=warmup_s + window_s + START_MARGIN_S,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"bare: no result after {error.timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise ServerError(f"bare: {str(error.stderr)[-500:]}") from error
    answer: dict[str, Any] = json.loads(result.stdout)
    return BareWindow(**answer)
