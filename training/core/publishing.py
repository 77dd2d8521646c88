"""Puts a version that is made in a folder into a repository, as its next one, in one step."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crossfade.runtimes.core.errors import ResourceExhausted
from crossfade.serving.exports.entry import Entry
from crossfade.serving.exports.writing import staged


def publish(
    make: Callable[[Path], object], repository: Path, name: str, config: Mapping[str, Any]
) -> Path:
    """Makes a version and moves it to its place; returns its folder.

    Args:
        make: fills an empty folder with the version's files.
        repository: made where it is not there.
        name: the model's.
        config: what ``model.yaml`` must say.

    Raises:
        InvalidArgument: no model may have that name.
        AlreadyExists: the model's ``model.yaml`` says otherwise.
        ResourceExhausted: the disk is full; nothing was written.
    """
    with TemporaryDirectory(prefix="crossfade-") as scratch:
        folder = Path(scratch)
        try:
            make(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise ResourceExhausted("the disk is full: nothing was written") from error
            raise
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        with staged(repository, name, Entry(files, {}, config)) as stage:
            return stage.publish(False)
