"""The GPU that tests marked ``gpu`` run on."""

from __future__ import annotations

import functools
import subprocess


@functools.cache
def why_not() -> str | None:
    """Why tests cannot use a GPU here; ``None`` if they can."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "the installed onnxruntime has no CUDA: it takes the extra [gpu]"
    try:
        used_mib()
    except (OSError, subprocess.CalledProcessError):
        return "there is no NVIDIA GPU"
    return None


def used_mib() -> int:
    """Memory in use on the first GPU, by all processes."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    return int(answer.stdout.splitlines()[0])
