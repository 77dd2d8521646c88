r"""The limit: ONNX Runtime called in a loop, no server.

Runs in a process of its own so that its CPU time is that of the inferences, and prints one line of
JSON::

    python -m crossfade.benchmarks.programs.bare_loop --threads 2 --warmup-s 1 --window-s 3 \
        .bench cnn
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.benchmarks.onnx_session import open_session
from crossfade.benchmarks.processes import sample_machine
from crossfade.benchmarks.workspace import Workspace


class Loop:
    """Threads that run one session on one input until told to stop."""

    def __init__(self, session: Any, feeds: dict[str, Any], threads: int) -> None:
        self._session = session
        self._feeds = feeds
        self._stopping = False
        self._latencies_us: list[list[int]] = [[] for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(latencies,))
            for latencies in self._latencies_us
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def counts(self) -> list[int]:
        """How many inferences each thread has done."""
        return [len(latencies) for latencies in self._latencies_us]

    def stop(self) -> None:
        """Stop all threads, after the inference that each has begun."""
        self._stopping = True
        for thread in self._threads:
            thread.join()

    def latencies_us(self, before: list[int], after: list[int]) -> list[int]:
        """The latencies between two `counts`."""
        return [
            latency
            for latencies, start, end in zip(self._latencies_us, before, after, strict=True)
            for latency in latencies[start:end]
        ]

    def _run(self, latencies_us: list[int]) -> None:
        while not self._stopping:
            started_ns = time.perf_counter_ns()
            self._session.run(None, self._feeds)
            latencies_us.append((time.perf_counter_ns() - started_ns) // 1000)


def main() -> None:
    """Measure the window that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup-s", type=float, required=True)
    parser.add_argument("--window-s", type=float, required=True)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("model")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace)
    with np.load(workspace.reference_file(arguments.model)) as archive:
        prefix = "0/input/"
        feeds = {
            name.removeprefix(prefix): archive[name]
            for name in archive.files
            if name.startswith(prefix)
        }
    session = open_session(str(workspace.model_file(arguments.model)))
    loop = Loop(session, feeds, arguments.threads)
    loop.start()
    time.sleep(arguments.warmup_s)
    machine_before = sample_machine()
    before, cpu_before_ns, before_s = loop.counts(), time.process_time_ns(), time.perf_counter()
    time.sleep(arguments.window_s)
    after, cpu_after_ns, after_s = loop.counts(), time.process_time_ns(), time.perf_counter()
    machine_after = sample_machine()
    loop.stop()
    result = {
        "latencies_us": sorted(loop.latencies_us(before, after)),
        "duration_s": after_s - before_s,
        "cpu_us": (cpu_after_ns - cpu_before_ns) / 1e3,
        "stolen_s": machine_after.stolen_s - machine_before.stolen_s,
        "busy_s": machine_after.busy_s - machine_before.busy_s,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
