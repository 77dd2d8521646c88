"""What tests of killed trainings share."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path


def kill_after(process: subprocess.Popen[str], place: Path, losses: int, within_s: float) -> None:
    """Kills a training with ``kill -9`` once its log has so many losses; it wrote no model yet.

    Args:
        process: with a pipe for its errors.
        place: has its ``run`` and ``models``.
        losses: lines of the log.
        within_s: they must be there by then.
    """
    metrics = place / "run" / "metrics.jsonl"
    try:
        until = time.monotonic() + within_s
        while not metrics.exists() or metrics.read_text().count("training/loss") < losses:
            assert process.poll() is None, "it ended too soon"
            assert time.monotonic() < until
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()
    assert not (place / "models").exists()


def newest_weights(place: Path) -> bytes:
    """Name and tensors of a run's newest checkpoint."""
    newest = max((place / "run" / "checkpoints").iterdir())
    return newest.name.encode() + (newest / "tensors.safetensors").read_bytes()
