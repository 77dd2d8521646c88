"""Where a version is made before it is one, and how it becomes one: by a rename, or not at all.

A stage is a hidden folder on the file system of the result; servers do not look into hidden
folders. It is removed however the work ends; one whose process was killed is removed by the next.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import AlreadyExists, ResourceExhausted

_PREFIX: Final = ".convert-"
_LOCK: Final = "lock"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def stage(parent: Path) -> Iterator[Path]:
    """An empty folder in ``parent``, removed at the end with all that is still in it.

    Raises:
        ResourceExhausted: the disk is full.
    """
    _remove_abandoned(parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            with (folder / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted("the disk is full; nothing was kept") from error
        raise


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def publish(version: Path, target: Path) -> None:
    """Makes ``version`` appear as ``target``, complete on the disk, in one step.

    Raises:
        AlreadyExists: there is something at ``target``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in (*version.rglob("*"), version):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    version.chmod(0o755)
    if target.exists():
        raise AlreadyExists(f"there is a '{target.name}' already")
    try:
        os.rename(version, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise AlreadyExists(f"there is a '{target.name}' already") from error
        raise
