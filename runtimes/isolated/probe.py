"""Loads a new file in a process that may crash, before it is loaded in one that may not.

What has been loaded once is known by a digest of its files, and by their place, size and times so
that it need not be read for that; neither costs a process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated.process import Crashed, WorkerProcess
from crossfade.runtimes.isolated.runtime import Limits, task

_log = logging.getLogger(__name__)
# TensorFlow's own, with the stacks of its threads, which grow with the cores.
_LIBRARY_BYTES: Final = 2 << 30
_CORE_BYTES: Final = 64 << 20
# Devices map memory as they like; what uses one is tried without a limit.
_DEVICE_OPTIONS: Final = frozenset({"execution_providers", "delegate", "device", "devices"})
_DEVICE_PLATFORMS: Final = frozenset({"tensorrt_plan"})
_MAX_MARKS: Final = 20_000
_TIMEOUT_S: Final = 120.0


class Probe:
    """Tries files that nobody has loaded here before. Thread-safe.

    Args:
        marks: the folder that remembers what was loaded; made if it is not there. ``None``
            remembers nothing.
        timeout_s: for a trial, the library's import with it.
    """

    def __init__(self, marks: Path | None, timeout_s: float = _TIMEOUT_S) -> None:
        self._marks = marks
        self._timeout_s = timeout_s

    def check(self, platform: str, artifact: Artifact) -> None:
        """Returns if the artifact may be loaded in this process.

        Raises:
            LoadFailed, MissingExtra: it could not be loaded in the other one, and why.
        """
        if not registry.entries()[platform].native_parser:
            return
        files = _files(artifact.path)
        about = f"{platform}\0{sorted(artifact.options.items())!r}"
        stamp = _stamp(about, files)
        if self._is_marked(stamp):
            return
        digest = _digest(about, artifact.path, files)
        if not self._is_marked(digest) and not self._try(platform, artifact):
            return
        if _stamp(about, _files(artifact.path)) == stamp:  # else they changed meanwhile
            self._mark(stamp, digest)

    def _try(self, platform: str, artifact: Artifact) -> bool:
        """Whether it was loaded; one that wants a device may yet be, by whoever has the device."""
        began_s = time.monotonic()
        try:
            trial(platform, artifact, self._timeout_s)
        except LoadFailed as error:
            if _wants_a_device(platform, artifact) and not isinstance(error, Crashed):
                return False
            raise LoadFailed(f"tried in a process of its own: {error.message}") from error
        seconds = round(time.monotonic() - began_s, 3)
        _log.info(
            "tried in a process of its own",
            extra={"model": artifact.name, "version": artifact.version, "seconds": seconds},
        )
        return True

    def _is_marked(self, name: str) -> bool:
        # Not Path.exists, which raises where a folder on the way may not be entered.
        return self._marks is not None and os.path.exists(self._marks / name)

    def _mark(self, *names: str) -> None:
        if self._marks is None:
            return
        try:
            self._marks.mkdir(parents=True, exist_ok=True)
            for name in names:
                (self._marks / name).touch()
            _forget(self._marks)
        except OSError as error:
            _log.warning(
                "what was tried cannot be remembered", extra={"reason": str(error.strerror)}
            )


def trial(
    platform: str, artifact: Artifact, timeout_s: float = _TIMEOUT_S, python: Path | None = None
) -> WorkerProcess:
    """Loads it in another process, runs it once with zeros, and ends that process.

    Args:
        platform: canonical name of the runtime.
        artifact: what it loads, with one instance.
        timeout_s: the library's import with it.
        python: another interpreter; ``None`` is this one.

    Returns:
        What is left of the process: ``signatures`` and ``facts``.

    Raises:
        LoadFailed, MissingExtra: it could not be loaded, and why; ``Crashed`` if the process was.
    """
    memory_bytes = None
    if not _wants_a_device(platform, artifact):
        cores = len(os.sched_getaffinity(0))
        estimate = registry.create(platform).estimate(artifact)
        memory_bytes = _LIBRARY_BYTES + cores * _CORE_BYTES + 2 * estimate
    alone = dataclasses.replace(artifact, instances=1)
    limits = Limits(memory_bytes, timeout_s)
    worker = WorkerProcess(task(platform, alone, limits, python, trial=True))
    worker.end()
    return worker


def _wants_a_device(platform: str, artifact: Artifact) -> bool:
    return platform in _DEVICE_PLATFORMS or bool(_DEVICE_OPTIONS & artifact.options.keys())


def _forget(folder: Path) -> None:
    """Removes the older half of too many marks; what they stood for is tried again, no more."""
    with os.scandir(folder) as entries:
        marks = list(entries)
    if len(marks) > _MAX_MARKS:
        for mark in sorted(marks, key=lambda m: m.stat().st_mtime)[: len(marks) // 2]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(mark)


def _files(path: Path) -> list[Path]:
    """What a runtime may read: the folder, or the file and what lies beside it (weights)."""
    folder = path if path.is_dir() else path.parent
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _stamp(about: str, files: Iterable[Path]) -> str:
    """Changes whenever a file does: its change time cannot be set back."""
    found = hashlib.sha256(about.encode())
    for file in files:
        s = file.stat()
        stamp = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        found.update(f"\0{file.absolute()}\0{stamp}".encode("utf-8", "surrogateescape"))
    return f"s-{found.hexdigest()}"


def _digest(about: str, path: Path, files: Iterable[Path]) -> str:
    """Of the files' names and contents, and which of them is opened."""
    folder = path if path.is_dir() else path.parent
    opened = "" if path.is_dir() else path.name
    found = hashlib.sha256(f"{about}\0{opened}".encode("utf-8", "surrogateescape"))
    for file in files:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        name = str(file.relative_to(folder))
        found.update(f"\0{name}\0{digest}".encode("utf-8", "surrogateescape"))
    return f"d-{found.hexdigest()}"
