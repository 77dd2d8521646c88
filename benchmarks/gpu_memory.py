"""The GPU that a benchmark runs on: which it is, and how much of its memory is in use."""

from __future__ import annotations

import subprocess


def query(fields: str) -> str:
    """What ``nvidia-smi`` says of the first GPU.

    Raises:
        OSError: there is no ``nvidia-smi``.
        subprocess.CalledProcessError: there is no GPU.
    """
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return answer.stdout.splitlines()[0]


def used_mib() -> int:
    """MiB in use on the first GPU, by all processes."""
    return int(query("memory.used"))
