"""Runs a job in a process of its own, with a time limit, and takes its answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import DeadlineExceeded, InvalidArgument, LoadFailed
from crossfade.serving.conversion.job import Job


def run(job: Job, timeout_s: float, say: Callable[[str], None]) -> Any:
    """Does ``job`` and returns its result, as plain values.

    Args:
        job: what to do; its stage must exist and be writable.
        timeout_s: the child is killed after so long.
        say: is told what is being done.

    Raises:
        InvalidArgument: it cannot be done; with the reason that the child gave.
        LoadFailed: the child crashed; with what it did then.
        DeadlineExceeded: it took too long.
    """
    stage = Path(job.stage)
    file = stage / "job.json"
    file.write_text(job.to_json())
    command = [sys.executable, "-m", "crossfade.serving.conversion.worker", str(file)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if job.target != "tensorrt":
        quiet["CUDA_VISIBLE_DEVICES"] = ""  # else TensorFlow takes the memory of every GPU
    with (stage / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **quiet},
        )
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout_s, stop)
    timer.start()
    last = "starting"
    answer: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            if "say" in answer:
                last = answer["say"]
                say(last)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None
    if late.is_set():
        raise DeadlineExceeded(f"it took longer than {timeout_s:g} s ({last}); see --timeout-s")
    if "result" in answer and code == 0:
        return answer["result"]
    if "error" in answer:
        raise InvalidArgument(answer["error"])
    why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = "; perhaps the machine ran out of memory" if code == -signal.SIGKILL else ""
    raise LoadFailed(f"the converter's process died ({why}) while {last}{hint}")
