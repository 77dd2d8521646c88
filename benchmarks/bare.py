"""The limit: bare ONNX Runtime, measured like a server that costs nothing.

At concurrency c it runs on as many threads as a server would run inferences in parallel, and no
more: c, but at most `PARALLEL_RUNS`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from crossfade.benchmarks.disturbance import least_disturbed
from crossfade.benchmarks.load import percentile
from crossfade.benchmarks.plan import Life, Plan
from crossfade.benchmarks.processes import ServerError
from crossfade.benchmarks.report import Measurement
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
        stolen_s: CPU time that the hypervisor gave to other guests.
        busy_s: CPU time that the machine used, for whatever program.
    """

    duration_s: float
    latencies_us: list[int]
    cpu_us: float
    stolen_s: float
    busy_s: float


def measure_bare(workspace: Workspace, plan: Plan, repetition: int) -> Life:
    """Measure every model at every concurrency, like one life of a server.

    Raises:
        ServerError: It failed or hung.
    """
    measurements = [
        least_disturbed(
            partial(_measure_once, workspace, plan, model, concurrency, repetition), plan.attempts
        )
        for model in plan.models
        for concurrency in plan.concurrencies
    ]
    return Life(starts=[], measurements=measurements, failures=[])


def _measure_once(
    workspace: Workspace, plan: Plan, model: str, concurrency: int, repetition: int
) -> Measurement:
    window = _run(workspace, plan, model, concurrency)
    runs = max(len(window.latencies_us), 1)
    foreign_s = max(0.0, window.busy_s - window.cpu_us / 1e6)
    return Measurement(
        server=NAME,
        model=model,
        concurrency=concurrency,
        repetition=repetition,
        requests=len(window.latencies_us),
        rps=len(window.latencies_us) / window.duration_s,
        p50_ms=percentile(window.latencies_us, 50) / 1e3,
        p99_ms=percentile(window.latencies_us, 99) / 1e3,
        cpu_us=window.cpu_us / runs,
        client_cpu_us=0.0,
        stolen_cores=window.stolen_s / window.duration_s,
        foreign_cores=foreign_s / window.duration_s,
        checked=0,
        counted=0,
    )


def _run(workspace: Workspace, plan: Plan, model: str, concurrency: int) -> BareWindow:
    """Run a model in a loop, in a process of its own.

    Raises:
        ServerError: It failed or hung.
    """
    command = [sys.executable, "-m", "crossfade.benchmarks.programs.bare_loop"]
    command += [f"--threads={min(concurrency, PARALLEL_RUNS)}"]
    command += [f"--warmup-s={plan.warmup_s}", f"--window-s={plan.window_s}"]
    command += [str(workspace.root), model]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=plan.warmup_s + plan.window_s + START_MARGIN_S,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"bare: no result after {error.timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise ServerError(f"bare: {str(error.stderr)[-500:]}") from error
    answer: dict[str, Any] = json.loads(result.stdout)
    return BareWindow(**answer)
