"""Puts a fit's file beside an ensemble's configuration, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.serving.repository.layout import ModelFiles


def version_of(model: ModelFiles, wanted: int | None) -> int:
    """The version of an ensemble that a fit is for: the newest, unless another is wanted.

    Raises:
        InvalidArgument: its configuration cannot be read.
        NotFound: there is no such version.
    """
    if model.error:
        raise InvalidArgument(f"'{model.name}': {model.error}")
    number = wanted or max(model.versions, default=0)
    if number not in model.versions:
        raise NotFound(f"'{model.name}' has no version {number or 'at all'}")
    return number


def put(text: str, folder: Path, name: str) -> Path:
    """Writes a file into a version's folder; a server that looks meanwhile sees the old one.

    Raises:
        InvalidArgument: the folder cannot be written.
    """
    scratch: Path | None = None
    try:
        # In a hidden folder, which is no part of the version for those who look now.
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".fit-"))
        new = scratch / name
        new.write_text(text + "\n", "utf-8")
        os.replace(new, folder / name)
    except OSError as error:
        raise InvalidArgument(f"'{name}' cannot be written: {error.strerror}") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder / name
