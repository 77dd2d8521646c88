"""A model compiled for the Edge TPU in a repository: its files, its twin, its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.litert import edge_tpu

_COMPILED = "model_edgetpu.tflite"


def files(model: Path) -> dict[str, Path]:
    """The compiled file or all its segments, and the twin if it lies beside; by their new names.

    Raises:
        LoadFailed: a segment is missing.
    """
    segments = edge_tpu.segments(model)
    names = [_COMPILED] if len(segments) == 1 else [path.name for path in segments]
    found = dict(zip(names, segments, strict=True))
    beside = twin(model)
    return found if beside is None else {**found, "model.tflite": beside}


def twin(model: Path) -> Path | None:
    """The file for the CPU beside a compiled one, if there is one of the usual name."""
    try:
        return edge_tpu.twin(model, None)
    except LoadFailed:
        return None


def options(model: Path, fallback: str | None) -> dict[str, Any]:
    """The runtime's options: the first Edge TPU of any kind, or one for each segment.

    Raises:
        InvalidArgument: a fallback is wanted and there is no twin.
    """
    devices = [f":{number}" for number in range(len(edge_tpu.segments(model)))]
    chosen: dict[str, Any] = {"device": ":0"} if len(devices) == 1 else {"devices": devices}
    if fallback is None:
        return chosen
    try:
        edge_tpu.twin(model, None)
    except LoadFailed as error:
        raise InvalidArgument(
            f"--fallback {fallback}: {error.message.partition(': ')[2].partition(';')[0]}: put the"
            " file that it was compiled from there"
        ) from error
    return {**chosen, "fallback": fallback}


def note(model: Path, fallback: str | None) -> str:
    """What to know of the twin; empty where it serves."""
    if fallback is not None:
        return ""
    if twin(model) is None:
        return "its twin for the CPU does not lie beside it: it serves on an Edge TPU only"
    return "its twin for the CPU came along: --fallback cpu lets it serve without an Edge TPU"


def leading(found: Sequence[Path]) -> Path | None:
    """Of files that are one compiled model with its segments and twin, the one to open."""
    for path in found:
        if edge_tpu.is_compiled(path):
            try:
                family = {*edge_tpu.segments(path), twin(path)}
            except LoadFailed:
                continue
            if set(found) <= family and edge_tpu.segments(path)[0] == path:
                return path
    return None
