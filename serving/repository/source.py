"""Where a repository lies: a local folder, or any URL that fsspec opens.

Each folder in it is one model's (``folders.py``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from crossfade.runtimes.core.errors import MissingExtra, NotFound
from crossfade.serving.repository.folders import Folder, LocalFolder, RemoteFolder
from crossfade.serving.repository.layout import (
    NAME,
    ModelFiles,
    VersionFiles,
    check_name,
)


class Source(Protocol):
    """A repository. Thread-safe."""

    def names(self) -> list[str]:
        """Names of the models' folders, sorted; those that no model may have are left out."""
        ...

    def read(self, name: str) -> ModelFiles:
        """Reads one model's folder as it is now.

        Raises:
            NotFound: there is no such folder.
            InvalidArgument: no model may have that name.
        """
        ...

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """Returns the local folder of a version, copied there if need be.

        Raises:
            LoadFailed: the copy is not what the listing says.
        """
        ...


class LocalSource:
    """A repository in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """See ``Source.names``."""
        return sorted(p.name for p in self._root.iterdir() if p.is_dir() and _is_name(p.name))

    def read(self, name: str) -> ModelFiles:
        """See ``Source.read``."""
        return LocalFolder(self._root / check_name(name)).read(name)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``: nothing to copy."""
        return LocalFolder(self._root / model.name).fetch(model, version)


class RemoteSource:
    """A repository behind an fsspec file system (``gs://``, ``s3://``, ``memory://`` …)."""

    def __init__(self, file_system: Any, root: str, cache: Path) -> None:
        self._fs = file_system
        self._root = root.rstrip("/")
        self._cache = cache

    def names(self) -> list[str]:
        """See ``Source.names``."""
        self._fs.invalidate_cache()
        found = self._fs.ls(self._root, detail=True)
        folders = (e["name"].rstrip("/").rpartition("/")[2] for e in found if _is_folder(e))
        return sorted(filter(_is_name, folders))

    def read(self, name: str) -> ModelFiles:
        """See ``Source.read``."""
        return self._folder(check_name(name)).read(name)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``."""
        return self._folder(model.name).fetch(model, version)

    def _folder(self, name: str) -> RemoteFolder:
        return RemoteFolder(self._fs, f"{self._root}/{name}", self._cache)


def open_source(location: str, cache: Path | None = None) -> Source:
    """Opens a repository.

    Args:
        location: a folder, or a URL that fsspec opens.
        cache: where remote versions are copied to; ``None`` is the user's cache folder.

    Raises:
        NotFound: there is no such folder.
        MissingExtra: the file system of the URL needs a package that is not installed.
    """
    if "://" not in location:
        root = Path(location)
        if not root.is_dir():
            raise NotFound(f"the model repository '{location}' is not a folder")
        return LocalSource(root)
    return RemoteSource(*_open_remote(location, cache))


def open_folder(location: str, cache: Path | None = None) -> Folder:
    """Opens the folder of one model, which need not be there yet; see ``open_source``."""
    if "://" not in location:
        return LocalFolder(Path(location))
    return RemoteFolder(*_open_remote(location, cache))


def _open_remote(location: str, cache: Path | None) -> tuple[Any, str, Path]:
    """The file system of a URL, the path on it, and where copies are kept."""
    import fsspec

    scheme = location.partition("://")[0]
    try:
        file_system, root_path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        package = {"gs": "gcsfs", "s3": "s3fs"}.get(scheme)
        if package is None:
            raise NotFound(f"'{scheme}://' is not a file system that fsspec knows") from error
        raise MissingExtra(scheme, f"models at {scheme}://") from error
    base = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crossfade"
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    return file_system, root_path, base / key


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _is_folder(entry: Mapping[str, Any]) -> bool:
    return bool(entry["type"] == "directory")
