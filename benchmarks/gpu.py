"""MobileNetV2 on a GPU: bare ONNX Runtime, crossfade's session, and a server over gRPC.

Run it with ``make bench-gpu`` on a machine with an NVIDIA GPU, its driver, and the extra [gpu] in
place of [onnx]. Every answer is compared with the CPU's. Tables go to standard output, and
``--json FILE`` keeps all figures; it is written anew after each part, so that an interrupted run
keeps what it has. ``--device cpu`` runs the parts that need no GPU, to try the program itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from crossfade.benchmarks.gpu_memory import query
from crossfade.benchmarks.gpu_server import Load, Setup, measure_servers
from crossfade.benchmarks.gpu_sessions import (
    ROWS,
    measure_memory,
    measure_sizes,
    measure_threads,
    measure_ways,
)
from crossfade.benchmarks.machine import describe_machine
from crossfade.benchmarks.models import write_model
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.workspace import Workspace

PACKAGES = (
    "onnxruntime-gpu",
    "onnxruntime",
    "nvidia-cublas",
    "nvidia-cudnn-cu13",
    "numpy",
    "grpcio",
    "protobuf",
)
LOADS = (Load(1, 1), Load(8, 1), Load(32, 1), Load(32, 1, shared_memory=True), Load(1, 16))
# TF32 products have ten bits of fraction; what a wrong row or a lost layer does is far larger.
TOLERANCE = 2e-2


def setups(device: str) -> Sequence[Setup]:
    """The ways of serving: defaults on the CPU, and the GPU by instances."""
    if device == "cpu":
        return (Setup("cpu", "cpu"),)
    return (
        Setup("cpu", "cpu"),
        Setup("cuda", "cuda"),
        Setup("cuda_1_instance", "cuda", 1),
        Setup("cuda_2_instances", "cuda", 2),
    )


def machine(device: str) -> dict[str, Any]:
    """Where the figures come from."""
    found: dict[str, Any] = {**describe_machine(), "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    if device != "cpu":
        found["gpu"] = query("name,driver_version,memory.total,power.limit,clocks.max.sm")
    return found


def errors(result: Any) -> list[float]:
    """All relative errors in a result, however deep."""
    if not isinstance(result, Mapping):
        return []
    found: list[float] = []
    for key, value in result.items():
        if key == "relative_error":
            found += value.values() if isinstance(value, Mapping) else [value]
        else:
            found += errors(value)
    return found


def report(results: Mapping[str, Any]) -> str:
    """Tables of the medians."""
    lines = [f"{key}: {value}" for key, value in results.get("machine", {}).items()]
    for rows, entry in results.get("ways", {}).items():
        for name, (median, least, most) in entry["ms"].items():
            lines.append(
                f"{rows:>3} rows  {name:16} {median:9.3f} ms ({least:.3f} to {most:.3f})"
                f"  error {entry['relative_error'][name]:.1e}"
            )
        lines.append(f"{rows:>3} rows  without TF32: error {_exact(entry):.1e}")
    for count, (median, least, most) in results.get("threads", {}).items():
        lines.append(f"{count:>3} threads {median:9.1f} runs/s ({least:.1f} to {most:.1f})")
    for search, entry in results.get("sizes", {}).items():
        for kind in ("first_ms", "again_ms", "steady_ms"):
            figures = "  ".join(f"{rows}: {ms:.1f}" for rows, ms in entry[kind].items())
            lines.append(f"{search:11} {kind:9} {figures}")
    if memory := results.get("memory"):
        lines.append(f"memory, MiB: {json.dumps(memory)}")
    for setup, loads in results.get("servers", {}).items():
        for name, entry in loads.items():
            lines.append(
                f"{setup:17} {name:38} {entry['rps'][0]:8.1f} requests/s"
                f" ({entry['rps'][1]:.1f} to {entry['rps'][2]:.1f})"
                f"  p50 {entry['p50_ms'][0]:8.2f} ms  p99 {entry['p99_ms'][0]:8.2f} ms"
            )
    return "\n".join(lines)


def _exact(entry: Mapping[str, Any]) -> float:
    error: float = entry["relative_error"]["without_tf32"]
    return error


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, measures and reports; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a server's window")
    parser.add_argument("--workspace", type=Path, default=Path(".bench"), metavar="FOLDER")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    workspace = Workspace(options.workspace)
    write_model(workspace, "cnn")
    model = workspace.model_file("cnn")
    device, repetitions = options.device, options.repetitions
    parts: dict[str, Callable[[], Any]] = {
        "machine": lambda: machine(device),
        "ways": lambda: measure_ways(
            model, device, ROWS, repetitions=repetitions, budget_s=options.seconds / 6
        ),
    }
    parts["threads"] = lambda: measure_threads(model, device, repetitions, options.seconds / 3)
    if device == "cuda":
        parts["memory"] = lambda: measure_memory(model, repetitions)
        parts["sizes"] = lambda: measure_sizes(model, options.seconds / 6)
    parts["servers"] = lambda: measure_servers(
        workspace, setups(device), LOADS, repetitions // 2 + 1, options.seconds
    )
    results: dict[str, Any] = {}
    for name, part in parts.items():
        progress(name)
        try:
            results[name] = part()
        except Exception as error:  # what else there is to measure is measured
            results.setdefault("failed", {})[name] = repr(error)
            progress(f"FAILED {name}: {error!r}")
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    print(report(results))
    wrong = [error for error in errors(results) if not error < TOLERANCE]
    if wrong:
        print(f"wrong answers: {max(wrong):.1e} from the CPU's, allowed are {TOLERANCE}")
    return 1 if wrong or "failed" in results else 0


if __name__ == "__main__":
    sys.exit(main())
