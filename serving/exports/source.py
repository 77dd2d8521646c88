"""Brings an export here: from a folder, a file, an archive, or a URL that fsspec opens."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.serving.exports import hosting
from crossfade.serving.exports.unpack import is_archive, unpack
from crossfade.serving.repository.folders import copied


@contextlib.contextmanager
def opened(
    location: str, cache: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Iterator[Path]:
    """Yields the local file or folder; what was unpacked is removed afterwards.

    Args:
        location: a path or a URL.
        cache: where copies of what is behind a URL are kept; ``None`` is the user's cache folder.
        progress: told how many bytes of how many have been copied.

    Raises:
        NotFound: there is nothing there.
        InvalidArgument: an archive that is damaged or hostile, or the name of a model in Vertex AI.
        MissingExtra: the file system of the URL needs a package that is not installed.
        LoadFailed: the copy is not what the listing says.
    """
    if "://" not in location and hosting.is_resource(location) and not Path(location).exists():
        raise InvalidArgument(hosting.of_resource(location))
    path = copied(location, cache, progress) if "://" in location else Path(location)
    if not path.exists():
        raise NotFound(f"there is nothing at '{location}'")
    if not (path.is_file() and is_archive(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="crossfade-") as folder:
        unpack(path, Path(folder))
        yield Path(folder)
