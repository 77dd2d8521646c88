"""Where a repository lies: a local folder, or any URL that fsspec opens.

Each folder in it is one model's (``folders.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from crossfade.runtimes.core.errors import NotFound
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.repository.folders import LocalFolder, RemoteFolder, remote_place
from crossfade.serving.repository.layout import (
    NAME,
    ModelFiles,
    VersionFiles,
    check_name,
    is_model,
)
from crossfade.serving.repository.places import Place, PlacedSource


class Source(Protocol):
    """A repository. Thread-safe."""

    def names(self) -> list[str]:
        """Names of the models' folders, sorted; those that no model may have are left out."""
        ...

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """Reads one model's folder as it is now.

        Args:
            name: the model's.
            override: counts instead of the folder's own configuration.

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

    def entries(self) -> list[str]:
        """What is in the folder; a folder's name ends in ``/``."""
        return [p.name + ("/" if p.is_dir() else "") for p in self._root.iterdir()]

    def names(self) -> list[str]:
        """See ``Source.names``."""
        return _names(self.entries())

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Source.read``."""
        return LocalFolder(self._root / check_name(name)).read(name, override)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``: nothing to copy."""
        return LocalFolder(self._root / model.name).fetch(model, version)


class RemoteSource:
    """A repository behind an fsspec file system (``gs://``, ``s3://``, ``memory://`` …)."""

    def __init__(self, file_system: Any, root: str, cache: Path) -> None:
        self._fs = file_system
        self._root = root.rstrip("/")
        self._cache = cache

    def entries(self) -> list[str]:
        """What is in the folder; a folder's name ends in ``/``."""
        self._fs.invalidate_cache()
        return [
            entry["name"].rstrip("/").rpartition("/")[2]
            + ("/" if entry["type"] == "directory" else "")
            for entry in self._fs.ls(self._root, detail=True)
        ]

    def names(self) -> list[str]:
        """See ``Source.names``."""
        return _names(self.entries())

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Source.read``."""
        return self._folder(check_name(name)).read(name, override)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``."""
        return self._folder(model.name).fetch(model, version)

    def _folder(self, name: str) -> RemoteFolder:
        return RemoteFolder(self._fs, f"{self._root}/{name}", self._cache)


def open_source(location: str, cache: Path | None = None, name: str = "") -> Source:
    """Opens a repository.

    Args:
        location: a folder, or a URL that fsspec opens.
        cache: where remote versions are copied to; ``None`` is the user's cache folder.
        name: the folder may also be that of one model, which is then called so.

    Raises:
        NotFound: there is no such folder.
        MissingExtra: the file system of the URL needs a package that is not installed.
        InvalidArgument: no model may have that name.
    """
    source: LocalSource | RemoteSource
    if "://" in location:
        source = RemoteSource(*remote_place(location, cache))
    elif Path(location).is_dir():
        source = LocalSource(Path(location))
    else:
        raise NotFound(f"the model repository '{location}' is not a folder")
    if not name:
        return source
    check_name(name)
    try:
        alone = is_model(source.entries())
    except FileNotFoundError:
        raise NotFound(f"the model repository '{location}' is not a folder") from None
    return PlacedSource({name: Place(location)}, cache) if alone else source


def _names(entries: list[str]) -> list[str]:
    folders = (entry.removesuffix("/") for entry in entries if entry.endswith("/"))
    return sorted(name for name in folders if NAME.fullmatch(name))
