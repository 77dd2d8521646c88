"""Which file is for the Edge TPU, which is its twin for the CPU, and what a pipeline is made of.

Names are those of edgetpu_compiler (``model_edgetpu.tflite``,
``model_segment_0_of_2_edgetpu.tflite``) and of AutoML's exports (``edgetpu_model.tflite``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed

LIBRARY: Final = "libedgetpu.so.1"
_COMPILED: Final = re.compile(r"^(?:edgetpu_(?P<after>.+)|(?P<before>.+)_edgetpu)\.tflite$")
_SEGMENT: Final = re.compile(r"^(?P<name>.+)_segment_(?P<index>\d+)_of_(?P<count>\d+)$")


def devices(options: Any) -> Sequence[str]:
    """The devices that a model's options name, if any, in the model's order."""
    return options.devices or ([options.device] if options.device else [])


def is_compiled(path: Path) -> bool:
    """Whether a file has the name of a compiled one."""
    return _COMPILED.match(path.name) is not None


def compiled(path: Path) -> Path:
    """Returns the compiled file for a model: itself, or the only one beside it.

    A folder that holds both is opened at ``model.tflite``, the CPU's; devices that are named mean
    the other one.
    """
    if is_compiled(path):
        return path
    beside = [p for p in path.parent.glob("*.tflite") if is_compiled(p)]
    first = [p for p in beside if _segment(p) in (None, 0)]
    return first[0] if len(first) == 1 else path


def twin(path: Path, named: str | None) -> Path:
    """Returns the CPU's file for a compiled model.

    Args:
        path: the compiled model.
        named: the file that the configuration names beside it; ``None`` goes by the names.

    Raises:
        LoadFailed: there is none.
    """
    names = [named] if named else _twins(path.name)
    for name in names:
        found = path.with_name(name)
        if found != path and found.is_file():
            return found
    raise LoadFailed(
        f"fallback: there is no '{names[0]}' for the CPU beside '{path.name}'; name it with "
        "the option 'cpu_model'"
    )


def segments(path: Path) -> list[Path]:
    """Returns the files to run one after the other: the model itself, or all of its segments.

    Raises:
        LoadFailed: a segment is missing.
    """
    stem = path.name.removesuffix("_edgetpu.tflite")
    found = _SEGMENT.match(stem) if stem != path.name else None
    if found is None:
        return [path]
    count = int(found["count"])
    names = [f"{found['name']}_segment_{i}_of_{count}_edgetpu.tflite" for i in range(count)]
    for name in names:
        if not path.with_name(name).is_file():
            raise LoadFailed(f"the segment '{name}' of the pipeline is missing")
    return [path.with_name(name) for name in names]


def _segment(path: Path) -> int | None:
    found = _SEGMENT.match(path.name.removesuffix("_edgetpu.tflite"))
    return int(found["index"]) if found else None


def _twins(name: str) -> list[str]:
    found = _COMPILED.match(name)
    stem = (found["after"] or found["before"]) if found else ""
    part = _SEGMENT.match(stem)
    return (
        [f"{part['name'] if part else stem}.tflite", "model.tflite"] if stem else ["model.tflite"]
    )
