"""Predictions kept on disk, under the digest of all that they depend on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from crossfade import __version__
from crossfade.ensemble.members import Known, Live
from crossfade.runtimes.core.model import ModelRef, Tensors
from crossfade.runtimes.registry import is_indirect
from crossfade.serving.fitting.predictions import Predictions
from crossfade.serving.lifecycle.ensembles import members_of
from crossfade.serving.lifecycle.versions import read
from crossfade.serving.repository.source import Source

_ARRAYS: Final = ("scores", "answered", "row_ms", "failure")


def key(
    member: Known, live: Live, sources: Sequence[Source], data: str, settings: Sequence[object]
) -> str | None:
    """Changes when the member's files or configuration, the data or the settings do.

    Args:
        member: whose predictions they are.
        live: says which version is meant.
        sources: hold the files.
        data: digest of the rows.
        settings: anything else that counts.

    Returns:
        ``None`` where the files do not decide: the model runs in another server.
    """
    files = _model(member.member.ref, live, sources, ())
    if files is None:
        return None
    about = (__version__, files, data, repr(member.member), *map(repr, settings))
    return hashlib.sha256("\0".join(about).encode()).hexdigest()


def _model(
    ref: ModelRef, live: Live, sources: Sequence[Source], above: tuple[str, ...]
) -> str | None:
    metadata = live.metadata(ref)
    if is_indirect(metadata.platform) or ref.name in above:
        return None
    found = read(sources, metadata.name)
    version = found.files.versions.get(metadata.version)
    if version is None:  # replaced since it was loaded
        return None
    folder = found.source.fetch(found.files, version)
    told = [repr(found.files.config), repr(sorted(found.files.label_files.items()))]
    for path in sorted(version.files):
        with (folder / path).open("rb") as file:
            told.append(f"{path} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    section = found.files.config.ensemble
    for one in members_of(section) if section else ():
        inside = _model(one.ref, live, sources, (*above, ref.name))
        if inside is None:
            return None
        told.append(inside)
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def digest(inputs: Tensors) -> str:
    """Of names, dtypes, shapes and values."""
    total = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        total.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        if array.dtype == object:
            for text in array.reshape(-1):
                total.update(f"{len(text)}\0".encode() + bytes(text))
        else:
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


class Cache:
    """A folder of predictions.

    Args:
        folder: is made when it is needed; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str | None, rows: int) -> Predictions | None:
        """What was put there; ``None`` where there is nothing of so many rows that can be read."""
        if self._folder is None or key is None:
            return None
        try:
            with self._place(key).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                scores, answered, row_ms, failure = (kept[name] for name in _ARRAYS)
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            return None
        fits = scores.ndim == 2 and len(scores) == len(answered) == len(row_ms) == rows
        return Predictions(scores, answered, row_ms, str(failure)) if fits else None

    def put(self, key: str | None, found: Predictions) -> None:
        """Keeps predictions; where they cannot be written, the next fit asks again."""
        if self._folder is None or key is None:
            return
        scratch: Path | None = None
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=".new-")
            scratch = Path(name)
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    scores=found.scores,
                    answered=found.answered,
                    row_ms=found.row_ms,
                    failure=np.array(found.failure),
                )
            os.replace(scratch, self._place(key))
            return
        if scratch is not None:
            scratch.unlink(missing_ok=True)

    def _place(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key[:40]}.npz"
