"""Finds the local file that an import file's URI means."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from crossfade.runtimes.core.errors import InvalidArgument


def locate(uri: str, images: Path, where: str) -> Path:
    """Returns the file under ``images`` for ``gs://bucket/path/a.jpg`` or ``path/a.jpg``.

    Of a bucket's path the longest end that exists below ``images`` counts, so that a copy of the
    bucket, of one of its folders, or of its files alone will do.

    Raises:
        InvalidArgument: the URI leads out of the folder.
    """
    _, scheme, rest = uri.rpartition("://")
    parts = PurePosixPath(rest.lstrip("/")).parts[1 if scheme else 0 :]
    if not parts or ".." in parts:
        raise InvalidArgument(f"{where}: '{uri}' names no picture in the data's folder")
    for start in range(len(parts)):
        path = images.joinpath(*parts[start:])
        if path.exists():
            return path
    return images.joinpath(*parts)
