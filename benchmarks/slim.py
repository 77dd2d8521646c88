"""How large ``crossfade[tflite]`` is in an environment of its own, and how soon it serves.

Installs a wheel into ``.bench/slim`` with the pinned versions, measures, takes away what of LiteRT
a CPU or an Edge TPU does not need (``docs/edge.md``), and measures again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from crossfade.benchmarks.machine import describe_machine
from crossfade.benchmarks.progress import progress

_ROOT: Final = Path(__file__).resolve().parent.parent
_MODEL: Final = _ROOT / "examples" / "digits" / "models" / "digits_automl"
_UNUSED: Final = ("libLiteRtWebGpuAccelerator.so", "libLiteRt.so", "tools", "vendors", "aot")
_OF_PYTHON: Final = ("pip", "setuptools", "pkg_resources", "_distutils")
_TIMEOUT_S: Final = 60
_REPETITIONS: Final = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark; the last line of standard output is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="crossfade's wheel (make wheel)")
    options = parser.parse_args(arguments)
    machine = describe_machine()
    folder = _ROOT / ".bench" / "slim"
    python = folder / "bin" / "python"
    progress(f"installing {options.wheel.name} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--no-compile"]
    pins = _ROOT / "requirements" / "constraints.txt"
    subprocess.run([*pip, "-c", str(pins), f"{options.wheel}[tflite]"], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    whole = _measure(python, packages)
    for name in _UNUSED:
        place = packages / "ai_edge_litert" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    result = {"machine": machine, "whole": whole, "without unused": _measure(python, packages)}
    sys.stdout.write(json.dumps(result) + "\n")


def _measure(python: Path, packages: Path) -> Mapping[str, object]:
    starts = [_start(python) for _ in range(_REPETITIONS)]
    sizes: dict[str, int] = {}
    for file in packages.rglob("*"):
        top = file.relative_to(packages).parts[0]
        if file.is_file() and file.suffix != ".pyc" and not top.startswith(_OF_PYTHON):
            sizes[top] = sizes.get(top, 0) + file.stat().st_size
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:8]
    return {
        "size_mb": round(sum(sizes.values()) / 1e6, 1),
        "largest_mb": {name: round(sizes[name] / 1e6, 1) for name in largest},
        "ready_s": round(statistics.median(ready for ready, _ in starts), 2),
        "resident_mb": round(statistics.median(resident for _, resident in starts), 1),
    }


def _start(python: Path) -> tuple[float, float]:
    """Seconds from the start of a server to readiness, and what it then has resident, in MB."""
    ports = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
    command = [str(python), "-I", "-m", "crossfade", "serve", "--log-format", "json", *ports]
    started = time.monotonic()
    server = subprocess.Popen(
        [*command, "--model-dir", str(_MODEL)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            # LiteRT writes lines of its own.
            if line.startswith("{") and json.loads(line)["message"] == "ready":
                ready = time.monotonic() - started
                status = Path(f"/proc/{server.pid}/status").read_text()
                (resident,) = (r for r in status.splitlines() if r.startswith("VmRSS:"))
                return ready, int(resident.split()[1]) * 1024 / 1e6
        raise RuntimeError("the server ended before it was ready")
    finally:
        server.terminate()
        server.wait(_TIMEOUT_S)


if __name__ == "__main__":
    main()
