"""Which folders may hold code that the server runs: none, unless its operator named them.

The list is the process's own, set once at its start, so that no configuration of a model, no
request and no command that only looks at a model can add to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import LoadFailed

# Written beside what was copied from a URL, with the digests of the files.
COPIED_MARK: Final = ".crossfade-digests.json"
_HOW: Final = "start the server with --allow-python-models and the folder that holds it"
_trusted: tuple[Path, ...] = ()


def allow(folders: Sequence[Path]) -> None:
    """Trusts exactly these folders and all below them, from now on.

    Raises:
        LoadFailed: one is no folder.
    """
    global _trusted  # noqa: PLW0603
    for folder in folders:
        if not folder.is_dir():
            raise LoadFailed(f"--allow-python-models: '{folder}' is not a folder")
    _trusted = tuple(folder.resolve() for folder in folders)


def allowed() -> tuple[Path, ...]:
    """The folders that are trusted now; a worker process is told them by its server."""
    return _trusted


def read(file: Path) -> bytes:
    """Returns the code of a file that may be run.

    Raises:
        LoadFailed: it lies in no trusted folder, was copied from a URL, or others may change it.
    """
    if not _trusted:
        raise LoadFailed(f"this server runs no Python models: {_HOW}")
    try:
        place = file.resolve(strict=True)
    except OSError as error:
        raise LoadFailed(f"{file.name} cannot be read: {error.strerror}") from error
    root = next((folder for folder in _trusted if place.is_relative_to(folder)), None)
    if root is None:
        raise LoadFailed(f"{file.name} lies in no folder whose code this server may run: {_HOW}")
    if (place.parent / COPIED_MARK).exists() or (file.parent / COPIED_MARK).exists():
        raise LoadFailed(f"{file.name} was copied from a URL, and such code is never run")
    above = place.parents[: place.parents.index(root) + 1]
    for folder in above:
        _check_owner(folder, os.stat(folder))
    with place.open("rb") as opened:
        _check_owner(place, os.fstat(opened.fileno()))  # of what is read, whatever lies there now
        return opened.read()


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise LoadFailed(f"others may change '{path.name}', so its code is not run: chmod go-w")
    if found.st_uid not in (0, os.geteuid()):
        raise LoadFailed(f"'{path.name}' is another user's, so its code is not run")
