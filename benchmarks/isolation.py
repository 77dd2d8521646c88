"""What a worker process costs: the same session with the same input, in process and isolated.

    make bench-isolation BENCH='--seconds 5 --json FILE'

The input is an image of 600 kB. Both sessions are asked in turns, a call each, so that a busy
machine disturbs both alike. Ends with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.benchmarks.machine import describe_machine
from crossfade.benchmarks.models import MAKERS
from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact, Session
from crossfade.runtimes.isolated import runtime

PLATFORM: Final = "onnxruntime_onnx"
MOST_ADDED_MS: Final = 1.0
MOST_ADDED_SHARE: Final = 0.15


def added(inside_ms: Sequence[float], isolated_ms: Sequence[float]) -> dict[str, float]:
    """Medians and 99th percentiles of both, and what isolation adds to the median."""
    inside, isolated = statistics.median(inside_ms), statistics.median(isolated_ms)
    return {
        "inside_p50_ms": inside,
        "inside_p99_ms": float(np.percentile(inside_ms, 99)),
        "isolated_p50_ms": isolated,
        "isolated_p99_ms": float(np.percentile(isolated_ms, 99)),
        "added_ms": isolated - inside,
        "added_share": (isolated - inside) / inside,
        "calls": len(inside_ms),
    }


def missed(result: dict[str, float]) -> list[str]:
    """The bars that a result misses, in words."""
    found = []
    if result["added_ms"] > MOST_ADDED_MS:
        found.append(f"{result['added_ms']:.3f} ms added, at most {MOST_ADDED_MS}")
    if result["added_share"] > MOST_ADDED_SHARE:
        found.append(f"{result['added_share']:.1%} added, at most {MOST_ADDED_SHARE:.0%}")
    return found


def measure(sessions: Sequence[Session], seconds: float) -> dict[str, float]:
    """Asks both in turns for so long.

    Raises:
        AssertionError: their answers are not the same to the bit.
    """
    signature = sessions[0].signatures["serving_default"]
    random = np.random.default_rng(0)
    shape = [1 if size == -1 else size for size in signature.inputs[0].shape or ()]
    inputs = {signature.inputs[0].name: random.random(shape, dtype=np.float32)}
    answers = [session.run(inputs, "serving_default", ()) for session in sessions for _ in "12345"]
    for name, array in answers[0].items():
        assert all((answer[name] == array).all() for answer in answers), "answers differ"
    times_ms: list[list[float]] = [[], []]
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        for session, found in zip(sessions, times_ms, strict=True):
            began_s = time.perf_counter()
            session.run(inputs, "serving_default", ())
            found.append((time.perf_counter() - began_s) * 1000)
    return added(*times_ms)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        model = Path(place) / "model.onnx"
        make, _ = MAKERS["cnn"]
        model.write_bytes(make().SerializeToString())
        artifact = Artifact(model, "cnn", 1, 1)
        sessions: list[Session] = [registry.create(PLATFORM).load(artifact)]
        try:
            sessions.append(runtime.load(PLATFORM, artifact, runtime.Limits()))
            result = measure(sessions, options.seconds)
        finally:
            for session in sessions:
                session.close()
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "cnn": result,
        "missed": missed(result),
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    for name, value in result.items():
        sys.stdout.write(f"{name:18} {value:.3f}\n")
    for line in report["missed"]:
        sys.stdout.write(f"missed: {line}\n")
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
