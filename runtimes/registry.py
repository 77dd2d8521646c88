"""Names of the runtimes: a literal table, opened to others by the ``crossfade.runtimes`` group.

A third party's distribution declares ``[project.entry-points."crossfade.runtimes"]`` with
``platform = "package.module:RuntimeClass"``; the class carries ``patterns``, the file names in a
version's folder that it opens. No runtime's library is imported here.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import logging
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, cast

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import Runtime
from crossfade.runtimes.fusing import Fuse

_log = logging.getLogger(__name__)
GROUP: Final = "crossfade.runtimes"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One platform: where its class is and which files it opens.

    Attributes:
        patterns: file or folder names in a version's folder, best first; a name ending in ``/``
            is a folder.
        aliases: other names that configurations use (Triton's backend names among them).
        extra: the optional dependency that brings its library; empty where none is needed.
        indirect: the model runs somewhere else: a configuration that names the platform is all of
            it where there are no files, and it gets no requests that nobody has sent.
        native_parser: its files are read by native code, which a hostile file may crash.
        fuser: a ``fusing.Fuse`` that makes one graph of several of its models, where there is one.
    """

    target: str
    patterns: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    extra: str = ""
    indirect: bool = False
    native_parser: bool = False
    fuser: str = ""

    def opens(self, name: str) -> bool:
        """Whether a file of that name (a folder's ends in ``/``) is one of this platform."""
        return any(fnmatch(name, pattern) for pattern in self.patterns)

    @property
    def backend(self) -> str:
        """Triton's name of what runs the platform, by convention the last alias."""
        return self.aliases[-1] if self.aliases else ""


BUILT_IN: Final[Mapping[str, Entry]] = {
    "onnxruntime_onnx": Entry(
        "crossfade.runtimes.ort.runtime:OnnxRuntime",
        ("model.onnx", "*.onnx"),
        ("onnx", "onnxruntime"),
        "onnx",
        native_parser=True,
        fuser="crossfade.runtimes.ort.fusion:fuse",
    ),
    "tensorflow_savedmodel": Entry(
        "crossfade.runtimes.savedmodel.runtime:SavedModelRuntime",
        ("saved_model.pb", "saved_model.pbtxt", "model.savedmodel/", "*.savedmodel/"),
        ("savedmodel", "tensorflow"),
        "tensorflow",
        native_parser=True,
    ),
    "tflite": Entry(
        "crossfade.runtimes.litert.runtime:LiteRtRuntime",
        ("model.tflite", "*.tflite"),
        ("litert", "tensorflow_lite"),
        "tflite",
        native_parser=True,
    ),
    "tensorrt_plan": Entry(
        "crossfade.runtimes.trt.runtime:TensorRtRuntime",
        ("model.plan", "*.plan"),
        ("tensorrt",),
        "tensorrt",
        native_parser=True,
    ),
    "torch": Entry(
        "crossfade.runtimes.exported_program.runtime:ExportedProgramRuntime",
        ("model.pt2", "*.pt2", "model.pt", "*.pt"),  # the last two are refused, and told why
        ("pytorch_libtorch", "pytorch"),
        "torch",
        native_parser=True,
    ),
    "python": Entry("crossfade.runtimes.python_model.runtime:PythonRuntime", ("model.py",)),
    "remote": Entry(
        "crossfade.serving.remote.runtime:RemoteRuntime", ("remote.yaml",), indirect=True
    ),
    "fake": Entry("crossfade.runtimes.fake:FakeRuntime", ("fake.yaml",)),
}


@functools.cache
def entries() -> Mapping[str, Entry]:
    """All platforms by name; a third party cannot take a built-in name."""
    table = dict(BUILT_IN)  # first, so that nobody else's pattern takes built-in files either
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            patterns = tuple(getattr(point.load(), "patterns", ()))
        except Exception:
            # One broken distribution must not cost the others; ``create`` says what is wrong.
            _log.exception("the runtime of platform '%s' cannot be imported", point.name)
            patterns = ()
        table.setdefault(point.name, Entry(point.value, patterns))
    return table


def resolve(platform: str) -> str:
    """Returns the canonical name of a platform or of one of its aliases.

    Raises:
        InvalidArgument: no runtime has that name; the message lists those that exist.
    """
    table = entries()
    for name, entry in table.items():
        if platform == name or platform in entry.aliases:
            return name
    raise InvalidArgument(f"unknown platform '{platform}'; this server has {', '.join(table)}")


def is_indirect(platform: str | None) -> bool:
    """Whether that platform or alias needs no files; an unknown one does."""
    return any(
        entry.indirect for name, entry in entries().items() if platform in (name, *entry.aliases)
    )


def detect(folder: Path, platform: str | None = None) -> tuple[str, Path] | None:
    """Finds what a version's folder holds: its platform and the path to open, if any.

    Args:
        folder: the version's folder.
        platform: only look for this one's files.
    """
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    for candidate, entry in entries().items():
        if platform not in (None, candidate):
            continue
        for pattern in entry.patterns:
            for name in names:
                if fnmatch(name, pattern):
                    opened = folder if name.startswith("saved_model.pb") else folder / name
                    return candidate, opened
    return None


def target(platform: str) -> str:
    """Returns where the class of a platform or alias is, as ``package.module:Class``.

    Raises:
        InvalidArgument: no runtime has that name.
    """
    return entries()[resolve(platform)].target


def fuser(platform: str) -> Fuse | None:
    """What fuses models of a platform, where anything does."""
    module, _, name = entries()[platform].fuser.partition(":")
    return cast(Fuse, getattr(importlib.import_module(module), name)) if module else None


def create(platform: str) -> Runtime:
    """Builds the runtime of a platform or alias.

    Raises:
        InvalidArgument: no runtime has that name.
        LoadFailed: a third party's class cannot be imported.
    """
    module, _, name = target(platform).partition(":")
    try:
        runtime_class = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise LoadFailed(f"the runtime of platform '{platform}' cannot be imported") from error
    return cast(Runtime, runtime_class())
