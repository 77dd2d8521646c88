"""Where a repository lies: a local folder, or any URL that fsspec opens.

A remote version is copied to a cache, every file checked against the listing, its digest written
down, and only then handed on; a cached version is checked against its digest again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from crossfade.runtimes.core.errors import LoadFailed, MissingExtra, NotFound
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.repository.layout import (
    NAME,
    FileInfo,
    ModelFiles,
    VersionFiles,
    check_name,
    is_model,
    read_model,
)

_MANIFEST = ".crossfade-digests.json"


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
    """A repository in a local folder.

    Args:
        only: the folder is no repository but one model's, which has this name.
    """

    def __init__(self, root: Path, only: str = "") -> None:
        self._root = root
        self._only = only

    def names(self) -> list[str]:
        """See ``Source.names``."""
        if self._only:
            return [self._only]
        return sorted(p.name for p in self._root.iterdir() if p.is_dir() and _is_name(p.name))

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Source.read``."""
        folder = self._folder(check_name(name))
        if not folder.is_dir() or self._only not in ("", name):
            raise NotFound(f"the model repository has no model '{name}'")
        return read_folder(name, folder, override)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``: nothing to copy."""
        return self._folder(model.name) / version.folder

    def _folder(self, name: str) -> Path:
        return self._root if self._only else self._root / name


class RemoteSource:
    """A repository behind an fsspec file system (``gs://``, ``s3://``, ``memory://`` …).

    Args:
        only: the folder is no repository but one model's, which has this name.
    """

    def __init__(self, file_system: Any, root: str, cache: Path, only: str = "") -> None:
        self._fs = file_system
        self._root = root.rstrip("/")
        self._cache = cache
        self._only = only

    def names(self) -> list[str]:
        """See ``Source.names``."""
        if self._only:
            return [self._only]
        self._fs.invalidate_cache()
        found = self._fs.ls(self._root, detail=True)
        return sorted(filter(_is_name, (_last(entry) for entry in found if _is_folder(entry))))

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Source.read``."""
        folder = self._folder(check_name(name))
        self._fs.invalidate_cache(folder)
        found: dict[str, Any] = self._fs.find(folder, detail=True)
        prefix = folder.lstrip("/") + "/"
        files = {
            path.lstrip("/").removeprefix(prefix): FileInfo(int(entry["size"]), _stamp(entry))
            for path, entry in found.items()
        }
        if not files or self._only not in ("", name):
            raise NotFound(f"the model repository has no model '{name}'")
        return read_model(
            name, files, lambda path: bytes(self._fs.cat_file(f"{folder}/{path}")), override
        )

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Source.fetch``."""
        folder = self._folder(model.name)
        target = self._cache / f"{model.name}-{version.version}-{version.fingerprint[:16]}"
        if target.exists():
            if _is_intact(target):
                return target
            shutil.rmtree(target, ignore_errors=True)  # damaged since it was copied
        self._cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=self._cache, prefix=".copy-"))
        try:
            for path, info in version.files.items():
                copy = scratch / path
                if not copy.resolve().is_relative_to(scratch.resolve()):
                    raise LoadFailed(f"the file name '{path}' leaves the version's folder")
                copy.parent.mkdir(parents=True, exist_ok=True)
                remote = "/".join(filter(None, (folder, version.folder, path)))
                self._fs.get_file(remote, str(copy))
                if copy.stat().st_size != info.size_bytes:
                    raise LoadFailed(f"'{path}' changed while it was copied; it is tried again")
            (scratch / _MANIFEST).write_text(json.dumps(_digests(scratch)))
            try:
                os.replace(scratch, target)
            except OSError:
                if not _is_intact(target):  # else another server was first
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target

    def _folder(self, name: str) -> str:
        return self._root if self._only else f"{self._root}/{name}"


def read_folder(name: str, folder: Path, override: ModelConfig | None = None) -> ModelFiles:
    """Reads a model's folder on the local disk, under any name."""
    return read_model(
        name, dict(_walk(folder)), lambda path: (folder / path).read_bytes(), override
    )


def open_source(location: str, cache: Path | None = None, name: str = "") -> Source:
    """Opens a repository.

    Args:
        location: a folder, or a URL that fsspec opens.
        cache: where remote versions are copied to; ``None`` is the user's cache folder.
        name: the folder may also be one model's, an export as it was written, say; this is then
            the model's name. Empty: it is a repository, whatever is in it.

    Raises:
        InvalidArgument: no model may have that name.
        NotFound: there is no such folder.
        MissingExtra: the file system of the URL needs a package that is not installed.
    """
    if name:
        check_name(name)
    if "://" not in location:
        root = Path(location)
        if not root.is_dir():
            raise NotFound(f"the model repository '{location}' is not a folder")
        entries = (p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
        return LocalSource(root, name if name and is_model(entries) else "")
    import fsspec

    scheme = location.partition("://")[0]
    try:
        file_system, root_path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        package = {"gs": "gcsfs", "s3": "s3fs"}.get(scheme)
        if package is None:
            raise NotFound(f"'{scheme}://' is not a file system that fsspec knows") from error
        raise MissingExtra(scheme, f"a repository at {scheme}://") from error
    base = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "crossfade"
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    only = name if name and is_model(_listed(file_system, root_path, location)) else ""
    return RemoteSource(file_system, root_path, base / key, only)


def _listed(file_system: Any, root: str, location: str) -> list[str]:
    """The names in a folder behind a URL; a folder's ends in ``/``."""
    try:
        found = file_system.ls(root.rstrip("/"), detail=True)
    except FileNotFoundError:
        raise NotFound(f"the model repository '{location}' is not a folder") from None
    return [_last(entry) + ("/" if _is_folder(entry) else "") for entry in found]


def _walk(folder: Path) -> list[tuple[str, FileInfo]]:
    found: list[tuple[str, FileInfo]] = []
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in files:
            path = Path(base, file)
            try:
                stat = path.stat()
            except OSError:
                continue  # removed while the folder was read
            info = FileInfo(stat.st_size, str(stat.st_mtime_ns))
            found.append((path.relative_to(folder).as_posix(), info))
    return found


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _is_folder(entry: Mapping[str, Any]) -> bool:
    return bool(entry["type"] == "directory")


def _last(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _stamp(entry: Mapping[str, Any]) -> str:
    keys = ("md5Hash", "ETag", "etag", "generation", "mtime", "LastModified", "created")
    return next((str(entry[key]) for key in keys if entry.get(key) is not None), "")


def _is_intact(folder: Path) -> bool:
    try:
        return bool(_digests(folder) == json.loads((folder / _MANIFEST).read_bytes()))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    return {path: _digest(folder / path) for path, _ in sorted(_walk(folder)) if path != _MANIFEST}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
