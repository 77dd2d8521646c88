"""Execution providers: short names to ONNX Runtime's, and what to do about a missing one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed

CPU: Final = "CPUExecutionProvider"
_SHORT: Final = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
Provider = tuple[str, dict[str, Any]]


def choose(
    wanted: Sequence[str | dict[str, dict[str, Any]]], there: Sequence[str]
) -> list[Provider]:
    """Returns the providers for a session, best first, the CPU last.

    Args:
        wanted: as ``OrtOptions.execution_providers``.
        there: names that the installed onnxruntime has.

    Raises:
        LoadFailed: one is not there; silently running elsewhere would be a surprise.
    """
    chosen: list[Provider] = []
    for item in wanted:
        pairs = [(item, {})] if isinstance(item, str) else list(item.items())
        chosen += [(_full_name(name, there), dict(options)) for name, options in pairs]
    if CPU not in [name for name, _ in chosen]:
        chosen.append((CPU, {}))
    return chosen


def check(wanted: Sequence[Provider], used: Sequence[str]) -> None:
    """Compares what a session was asked for with what it got.

    Raises:
        LoadFailed: a provider's own libraries did not load (CUDA, cuDNN, TensorRT), at which
            ONNX Runtime goes on without it.
    """
    lost = [name for name, _ in wanted if name not in used]
    if lost:
        raise LoadFailed(
            f"execution provider {', '.join(lost)} did not start: its device or its libraries "
            "(CUDA, cuDNN, TensorRT) are missing; see the server's log"
        )


def _full_name(name: str, there: Sequence[str]) -> str:
    full = _SHORT.get(name.lower(), name)
    for found in there:
        if found.lower() == full.lower():
            return found
    hint = "; install the extra [gpu] in place of [onnx]" if full in _SHORT.values() else ""
    raise LoadFailed(
        f"execution provider '{name}' is not in the installed onnxruntime, "
        f"which has {', '.join(there)}{hint}"
    )
