"""Each runtime behind the server against the bare library call, and 8-bit integers against floats.

Run it with ``make bench-runtimes``, or::

    python -m crossfade.benchmarks.runtimes --quick

One network, MobileNetV2 at 224 pixels with random weights, in three formats: a SavedModel, and
what ``crossfade convert`` makes of it for ONNX Runtime and LiteRT, with floats and with 8-bit
integers (calibrated on made-up pictures: only their speed means something). For 1 and for 8
pictures a request, one request at a time: runs a second over gRPC, by NVIDIA's client on this
machine, divided by those of the bare library call in a process of its own, with as many threads as
the server's defaults give it. Both are measured in turns, so that whatever else the machine does
meets both; the best turn of each counts. Every answer over gRPC is compared with the bare one.

The last line of standard output is one JSON object; ``onnx_b8_vs_bare`` is the share of the bare
speed that is left, ``onnx_int8_b8_vs_float`` the speed of 8 bits in floats' speed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossfade.benchmarks.machine import describe_machine
from crossfade.benchmarks.processes import HOST, Launch, ServerProcess, free_ports
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.workspace import Workspace

FORMATS: Mapping[str, str] = {
    "savedmodel": "",
    "onnx": "onnx",
    "tflite": "tflite",
    "onnx_int8": "onnx-int8",
    "tflite_int8": "tflite-int8",
}
ROWS = (1, 8)


@dataclass(frozen=True)
class Options:
    """The command line.

    Attributes:
        formats: Of ``FORMATS``.
        window_s: Of one measurement.
        turns: How often each side is measured.
    """

    workspace: Workspace
    formats: Sequence[str]
    window_s: float
    turns: int
    json_file: Path | None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m crossfade.benchmarks.runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short turn, a smoke test")
    parser.add_argument("--formats", default=",".join(FORMATS), metavar="A,B")
    parser.add_argument("--seconds", type=float, help="of a measurement (3; quick: 0.5)")
    parser.add_argument("--turns", type=int, help="of each side (5; quick: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--workspace", type=Path, default=Path(".bench"), metavar="FOLDER")
    parsed = parser.parse_args(arguments)
    formats = parsed.formats.split(",")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(FORMATS)}")
    return Options(
        workspace=Workspace(parsed.workspace),
        formats=formats,
        window_s=parsed.seconds or (0.5 if parsed.quick else 3.0),
        turns=parsed.turns or (1 if parsed.quick else 5),
        json_file=parsed.json,
    )


def prepare(options: Options) -> Path:
    """Make the repository with a model for each format, once.

    Returns:
        The repository.
    """
    repository = (options.workspace.root / "runtimes").absolute()
    rows = repository.parent / "runtimes.npz"
    program = [sys.executable, "-m", "crossfade.benchmarks.programs.runtime_side"]
    if not (repository / "savedmodel" / "1" / "saved_model.pb").is_file():
        progress("writing the SavedModel")
        subprocess.run([*program, "make", str(repository), str(rows)], check=True)
    for name in options.formats:
        if FORMATS[name] and not (repository / name).is_dir():
            progress(f"converting to {FORMATS[name]}")
            command = [sys.executable, "-m", "crossfade", "convert", "savedmodel"]
            command += ["--repository", str(repository), "--to", FORMATS[name], "--as", name]
            # Random weights have no first choices that would survive rounding; speed is the point.
            command += ["--data", str(rows), "--agreement", "0.001"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return repository


@contextmanager
def serving(options: Options, repository: Path) -> Iterator[int]:
    """A server over the repository, as its users start it; gives its gRPC port."""
    grpc_port, http_port, metrics_port = free_ports(3)
    command = [sys.executable, "-m", "crossfade", "serve", "--model-repository", str(repository)]
    command += ["--host", HOST, "--grpc-port", str(grpc_port), "--http-port", str(http_port)]
    command += ["--metrics-port", str(metrics_port)]
    launch = Launch(command, grpc_port)
    server = ServerProcess("runtimes", launch, options.workspace.log_file("runtimes"))
    server.start()
    try:
        yield grpc_port
    finally:
        server.stop()


class Side:
    """A process that runs windows on request: the bare library, or the client of the server."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "crossfade.benchmarks.programs.runtime_side", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, rows: int, window_s: float) -> dict[str, Any]:
        """Run one window.

        Returns:
            ``runs_per_s``, ``p50_ms``, and a ``digest`` of the answer.

        Raises:
            RuntimeError: The process died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"rows": rows, "window_s": window_s}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a side of the benchmark died")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def measure(options: Options, repository: Path, port: int, name: str) -> dict[str, Any]:
    """Measure one format: both sides in turns, for each number of rows."""
    bare = Side("bare", str(repository / name / "1"), name)
    served = Side("served", f"{HOST}:{port}", name)
    found: dict[str, Any] = {}
    try:
        for rows in ROWS:
            pairs = []
            for turn in range(options.turns):
                sides = (bare, served) if turn % 2 == 0 else (served, bare)
                results = {side: side.run(rows, options.window_s) for side in sides}
                pairs.append((results[bare], results[served]))
            best_bare = max(pair[0]["runs_per_s"] for pair in pairs)
            best_served = max(pair[1]["runs_per_s"] for pair in pairs)
            alike = all(_alike(pair[0]["answer"], pair[1]["answer"]) for pair in pairs)
            found[f"b{rows}"] = {
                "bare_runs_per_s": best_bare,
                "served_runs_per_s": best_served,
                "bare_p50_ms": min(pair[0]["p50_ms"] for pair in pairs),
                "served_p50_ms": min(pair[1]["p50_ms"] for pair in pairs),
                "vs_bare": best_served / best_bare,
                "alike": alike,
            }
            progress(f"{name} b{rows}: {best_served / best_bare:.3f} of bare")
    finally:
        bare.close()
        served.close()
    return found


def _alike(bare: Sequence[float], served: Sequence[float]) -> bool:
    return len(bare) == len(served) and all(
        abs(a - b) <= 1e-4 for a, b in zip(bare, served, strict=True)
    )


def headline(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The ratios, by their JSON keys."""
    ratios = {
        f"{name}_{rows}_vs_bare": round(values["vs_bare"], 4)
        for name, sizes in found.items()
        for rows, values in sizes.items()
    }
    for name in ("onnx", "tflite"):
        if name in found and f"{name}_int8" in found:
            for rows, floats in found[name].items():
                small = found[f"{name}_int8"][rows]
                ratio = small["served_runs_per_s"] / floats["served_runs_per_s"]
                ratios[f"{name}_int8_{rows}_vs_float"] = round(ratio, 4)
    return ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, measure and report.

    Returns:
        0, or 1 if an answer was wrong.
    """
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    # End through the context managers, so that no server is left behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options.workspace.root.mkdir(parents=True, exist_ok=True)
    repository = prepare(options)
    machine = describe_machine()
    found = {}
    with serving(options, repository) as port:
        for name in options.formats:
            found[name] = measure(options, repository, port, name)
    ok = all(values["alike"] for sizes in found.values() for values in sizes.values())
    for name, sizes in found.items():
        for rows, values in sizes.items():
            print(
                f"{name:12} {rows:3} bare {values['bare_p50_ms']:8.2f} ms, served"
                f" {values['served_p50_ms']:8.2f} ms, {values['vs_bare']:.3f} of bare"
            )
    document = {**headline(found), "ok": ok, "machine": dict(machine), "measured": found}
    text = json.dumps(document)
    print(text)
    if options.json_file is not None:
        options.json_file.write_text(text + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
