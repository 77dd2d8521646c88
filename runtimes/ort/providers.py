"""Execution providers: short names to ONNX Runtime's, what they need, and what they took."""

from __future__ import annotations

import collections
import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.reason import one_line

_log = logging.getLogger(__name__)
CPU: Final = "CPUExecutionProvider"
_SHORT: Final = {
    "cpu": CPU,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_NVIDIA: Final = {_SHORT["cuda"], _SHORT["tensorrt"]}
_RECORD: Final = "session.record_ep_graph_assignment_info"
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


def prepare(chosen: Sequence[Provider], session_options: Any, ort: Any) -> None:
    """Loads CUDA's and cuDNN's libraries and has the session write down who takes which node.

    The dynamic loader finds CUDA where the system has it, but not in NVIDIA's Python packages.

    Args:
        chosen: as ``choose`` returned it; nothing is done for the CPU alone.
        session_options: an ``onnxruntime.SessionOptions`` to write to.
        ort: the onnxruntime module.
    """
    names = {name for name, _ in chosen}
    if names & _NVIDIA:
        with contextlib.redirect_stdout(io.StringIO()) as said:  # it prints what it does not find
            ort.preload_dlls()
        if missing := said.getvalue():
            _log.warning("CUDA libraries are missing", extra={"reason": one_line(missing)})
    if names != {CPU}:
        session_options.add_session_config_entry(_RECORD, "1")


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


def report(chosen: Sequence[Provider], session: Any, model: str) -> dict[str, int]:
    """Returns and logs how many nodes each provider took; warns if the best one took none."""
    record = getattr(session, "get_provider_graph_assignment_info", None)  # since 1.24
    if record is None or {name for name, _ in chosen} == {CPU}:
        return {}
    nodes: collections.Counter[str] = collections.Counter()
    for part in record():
        nodes[part.ep_name] += len(part.get_nodes())
    level = logging.INFO if nodes[chosen[0][0]] else logging.WARNING
    _log.log(level, "nodes by execution provider", extra={"model": model, "nodes": dict(nodes)})
    return dict(nodes)


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
