"""What ensembles cost: beside bare sessions, fused, with a shadow, and beside Triton's.

    make bench-ensembles BENCH='--seconds 10 --json FILE'

The pair is one MobileNetV2 with two heads. In one process, calls of each kind are made in turns, so
that a busy machine disturbs all alike; behind servers, one server lives at a time. A missing Triton
(``make triton``) is left out. Ends with 1 if a bar is missed. The last line of standard output is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.benchmarks import ensemble_pair as pair
from crossfade.benchmarks import ensemble_servers as servers
from crossfade.benchmarks.load import LoadError, find_h2load
from crossfade.benchmarks.machine import describe_machine
from crossfade.benchmarks.onnx_session import open_session
from crossfade.benchmarks.peers.triton import Triton
from crossfade.benchmarks.processes import ServerError
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.workspace import Workspace
from crossfade.runtimes.core.model import InferRequest, InferResponse, ModelRef
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.repository.source import LocalSource

# A ratio of the first to the second: at most, or at least.
AT_MOST: Final = {"pair_vs_bare": 1.05, "fused_vs_unfused": 0.55, "shadow_p99_ratio": 1.05}
AT_LEAST: Final = {"pair_vs_triton": 1.8, "unfused_pair_vs_triton": 1.0}
SERVERS: Final = ("crossfade-fused", "crossfade-unfused", "triton")
Call = Callable[[], Any]


@contextmanager
def served(folder: Path) -> Iterator[Manager]:
    """A manager of the pair's repository, once the members of ``fused`` are.

    Raises:
        RuntimeError: they cannot be fused.
    """
    manager = Manager([LocalSource(folder)], Mode.EXPLICIT, startup=["*"])
    manager.start()
    try:
        found = next(s.fusion for s in manager.served() if s.metadata.name == "fused")
        assert found is not None
        until_s = time.monotonic() + 120
        while not found.state.fused:
            if time.monotonic() > until_s:
                raise RuntimeError(f"the members are not fused: {found.state.reason}")
            time.sleep(0.1)
        yield manager
    finally:
        manager.close()


def caller(manager: Manager, name: str) -> Call:
    """Asks a model as the data plane does."""
    request = InferRequest({pair.INPUT: pair.picture()})
    ref = ModelRef(name)

    def call() -> Any:
        with manager.lease(ref) as model:
            (answer,) = model.infer((request,))
        assert isinstance(answer, InferResponse), answer
        return answer.outputs[pair.OUTPUT]

    return call


def bare(folder: Path) -> Call:
    """Runs both bare sessions, one after the other."""
    sessions = [open_session(str(pair.model_file(folder, name))) for name in pair.MEMBERS]
    feed = {pair.INPUT: pair.picture()}
    return lambda: [session.run([pair.OUTPUT], feed) for session in sessions]


@dataclass(frozen=True)
class Rounds:
    """Of each kind, one number a round: milliseconds for a call, on the clock and of CPU time."""

    wall_ms: Mapping[str, list[float]]
    cpu_ms: Mapping[str, list[float]]

    def ratio(self, one: str, other: str) -> dict[str, float]:
        """The medians over rounds of the quotients of two kinds in the same round."""
        return {
            name: statistics.median(a / b for a, b in zip(ms[one], ms[other], strict=True))
            for name, ms in (("wall", self.wall_ms), ("cpu", self.cpu_ms))
        }

    def medians(self) -> dict[str, dict[str, float]]:
        """By kind."""
        return {
            kind: {
                "wall_ms": statistics.median(self.wall_ms[kind]),
                "cpu_ms": statistics.median(self.cpu_ms[kind]),
            }
            for kind in self.wall_ms
        }


def busy(calls: Mapping[str, Call], seconds: float, threads: int) -> Rounds:
    """Has each of ``threads`` make one call after the other, a few of each kind in turns."""
    found = Rounds({name: [] for name in calls}, {name: [] for name in calls})
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        for name, call in calls.items():
            wall_ms, cpu_ms = _round(call, threads)
            found.wall_ms[name].append(wall_ms)
            found.cpu_ms[name].append(cpu_ms)
    return found


def _round(call: Call, threads: int, calls: int = 8) -> tuple[float, float]:
    together = threading.Barrier(threads + 1)

    def work() -> None:
        together.wait()
        for _ in range(calls):
            call()

    started = [threading.Thread(target=work) for _ in range(threads)]
    for one in started:
        one.start()
    together.wait()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for one in started:
        one.join()
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return wall_s * 1000 / calls, cpu_s * 1000 / calls / threads


def paced(calls: Mapping[str, Call], seconds: float, pause_s: float) -> dict[str, list[float]]:
    """Latencies in milliseconds of lone calls, in turns of a few, with a pause after each."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        for name, call in calls.items():
            for _ in range(5):
                began_s = time.perf_counter()
                call()
                found[name].append((time.perf_counter() - began_s) * 1000)
                time.sleep(pause_s)
    return found


def in_process(seconds: float, folder: Path) -> dict[str, Any]:
    """All that needs no server."""
    cores = len(os.sched_getaffinity(0))
    with served(folder) as manager:
        names = {s.metadata.name for s in manager.served()}
        calls = {"bare": bare(folder)}
        calls |= {name: caller(manager, name) for name in ("unfused", "fused")}
        wanted = pair.expected(folder)
        for name in ("unfused", "fused"):
            assert np.allclose(calls[name](), wanted, atol=1e-6), f"{name}: a wrong answer"
        for call in calls.values():
            _round(call, cores)
        progress(f"{cores} threads, every core busy")
        loaded = busy(calls, seconds, cores)
        progress("one caller alone")
        lone = busy(calls, seconds / 2, 1)
        document: dict[str, Any] = {"cores": cores}
        for suffix, rounds in (("", loaded), ("_alone", lone)):
            for key, one, other in (
                ("pair_vs_bare", "unfused", "bare"),
                ("fused_vs_unfused", "fused", "unfused"),
            ):
                found = rounds.ratio(one, other)
                document[key + suffix] = found["wall"]
                document[f"{key}{suffix}_cpu"] = found["cpu"]
        document |= {"busy": loaded.medians(), "alone": lone.medians()}
        if "shadow" in names:
            progress("a shadow")
            document |= shadow(manager, seconds)
    return document


def shadow(manager: Manager, seconds: float) -> dict[str, Any]:
    """The primary alone, and with a mirror that gets every request."""
    calls = {name: caller(manager, name) for name in ("automl", "shadow")}
    for call in calls.values():
        for _ in range(20):
            call()
    # The mirror has a core of its own, and is done before the next request.
    found = paced(calls, 2 * seconds, 0.025)
    p99 = {name: float(np.percentile(times, 99)) for name, times in found.items()}
    p50 = {name: statistics.median(times) for name, times in found.items()}
    return {
        "shadow_p99_ratio": p99["shadow"] / p99["automl"],
        "shadow_p50_ratio": p50["shadow"] / p50["automl"],
        "shadow_ms": {"p50": p50, "p99": p99, "calls": len(found["shadow"])},
    }


def behind_servers(
    workspace: Workspace, folder: Path, repetitions: int, window_s: float
) -> dict[str, Any]:
    """The pair over gRPC, beside Triton where it is installed."""
    names = [n for n in SERVERS if n != "triton" or Triton().installed(workspace)]
    rows: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for repetition in range(repetitions):
        for name in names if repetition % 2 == 0 else reversed(names):
            progress(f"{name}, life {repetition + 1} of {repetitions}")
            rows[name].append(servers.measure(name, workspace, folder, window_s))
    return {
        **servers.ratios(rows),
        "servers": rows,
        "concurrency": servers.CONCURRENCY,
        "missing": [name for name in SERVERS if name not in names],
    }


def missed(document: Mapping[str, Any]) -> list[str]:
    """The bars that a result misses, in words; what was not measured misses none."""
    over = [
        f"{key} is {document[key]:.3f}, at most {most}"
        for key, most in AT_MOST.items()
        if document.get(key, most) > most
    ]
    under = [
        f"{key} is {document[key]:.3f}, at least {least}"
        for key, least in AT_LEAST.items()
        if document.get(key, least) < least
    ]
    return over + under


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=2, help="lives of each server")
    parser.add_argument("--only", choices=("process", "servers"), help="one half of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures there")
    parser.add_argument("--workspace", type=Path, default=Path(".bench"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    workspace = Workspace(options.workspace.resolve())
    document: dict[str, Any] = {"machine": describe_machine()}
    workspace.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.root, prefix="pair-") as place:
        folder = Path(place) / "models"
        pair.write_repository(folder)
        try:
            if options.only != "servers":
                document |= in_process(options.seconds, folder)
            if options.only != "process":
                find_h2load()
                window_s = options.seconds / 2
                document |= behind_servers(workspace, folder, options.repetitions, window_s)
        except (LoadError, ServerError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    document["missed"] = missed(document)
    for line in document["missed"]:
        print(f"missed: {line}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    return 1 if document["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
