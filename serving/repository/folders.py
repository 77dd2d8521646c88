"""The folder of one model, under any name: on the local disk, or behind a URL.

A remote version is copied to a cache, every file checked against the listing, its digest written
down, and only then handed on; a cached version is checked against its digest again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from crossfade.runtimes.core.errors import LoadFailed, MissingExtra, NotFound, PermissionDenied
from crossfade.runtimes.trust import COPIED_MARK as _MANIFEST
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.repository.layout import (
    FileInfo,
    ModelFiles,
    VersionFiles,
    fingerprint,
    read_model,
)


class Folder(Protocol):
    """Where one model lies. Thread-safe."""

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """Reads the folder as it is now, for a model of that name.

        Args:
            name: the model's.
            override: counts instead of the folder's own configuration.

        Raises:
            NotFound: there is no such folder.
        """
        ...

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """Returns the local folder of a version, copied there if need be.

        Raises:
            LoadFailed: the copy is not what the listing says.
        """
        ...


class LocalFolder:
    """A folder on the local disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Folder.read``."""
        if not self._path.is_dir():
            raise no_folder(name)
        return read_folder(name, self._path, override)

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        """See ``Folder.fetch``: nothing to copy."""
        return self._path / version.folder


class RemoteFolder:
    """A folder behind an fsspec file system (``gs://``, ``s3://``, ``memory://`` …)."""

    def __init__(self, file_system: Any, path: str, cache: Path) -> None:
        self._fs = file_system
        self._path = path.rstrip("/")
        self._cache = cache

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        """See ``Folder.read``."""
        files = self.listing()
        if not files:
            raise no_folder(name)
        cat = self._fs.cat_file
        return read_model(name, files, lambda path: bytes(cat(f"{self._path}/{path}")), override)

    def listing(self) -> dict[str, FileInfo]:
        """Every file below the folder, by path relative to it."""
        self._fs.invalidate_cache(self._path)
        found: dict[str, Any] = self._fs.find(self._path, detail=True)
        prefix = self._path.lstrip("/") + "/"
        return {
            path.lstrip("/").removeprefix(prefix): FileInfo(int(entry["size"]), _stamp(entry))
            for path, entry in found.items()
        }

    def fetch(
        self,
        model: ModelFiles,
        version: VersionFiles,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """See ``Folder.fetch``; ``progress`` is told how many bytes of how many are there."""
        target = self._cache / f"{model.name}-{version.version}-{version.fingerprint[:16]}"
        if target.exists():
            if _is_intact(target):
                return target
            shutil.rmtree(target, ignore_errors=True)  # damaged since it was copied
        self._cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=self._cache, prefix=".copy-"))
        total, done = sum(info.size_bytes for info in version.files.values()), 0
        try:
            for path, info in version.files.items():
                copy = scratch / path
                if not copy.resolve().is_relative_to(scratch.resolve()):
                    raise LoadFailed(f"the file name '{path}' leaves the version's folder")
                copy.parent.mkdir(parents=True, exist_ok=True)
                remote = "/".join(filter(None, (self._path, version.folder, path)))
                self._fs.get_file(remote, str(copy))
                if copy.stat().st_size != info.size_bytes:
                    raise LoadFailed(f"'{path}' changed while it was copied; it is tried again")
                done += info.size_bytes
                if progress is not None:
                    progress(done, total)
            (scratch / _MANIFEST).write_text(json.dumps(_digests(scratch)))
            try:
                os.replace(scratch, target)
            except OSError:
                if not _is_intact(target):  # else another server was first
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target


def open_folder(location: str, cache: Path | None = None) -> Folder:
    """Opens the folder of one model, which need not be there yet; see ``open_source``."""
    if "://" not in location:
        return LocalFolder(Path(location))
    return RemoteFolder(*remote_place(location, cache))


def copied(
    location: str,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Copies whatever is behind a URL, one file or all below a folder; returns where it is now.

    Args:
        location: any URL that fsspec opens.
        cache: where copies are kept; ``None`` is the user's cache folder.
        progress: see ``RemoteFolder.fetch``.

    Raises:
        NotFound: there is nothing, or no such file system.
        MissingExtra: the file system needs a package that is not installed.
        LoadFailed: the copy is not what the listing says.
        PermissionDenied: the caller may not read there.
    """
    file_system, path, base = remote_place(location.rstrip("/"), cache)
    try:
        alone = file_system.info(path) if file_system.isfile(path) else None
        parent, _, name = path.rpartition("/")
        folder = RemoteFolder(file_system, path if alone is None else parent, base)
        files = (
            folder.listing()
            if alone is None
            else {name: FileInfo(int(alone["size"]), _stamp(alone))}
        )
        # Some object stores keep folders as empty objects.
        files = {file: info for file, info in files.items() if file and not file.endswith("/")}
        if not files:
            raise NotFound(f"there is nothing at '{location}'")
        everything = VersionFiles(1, "", files, fingerprint(files))
        copy = folder.fetch(ModelFiles("export", ModelConfig(), {}, {}), everything, progress)
    except FileNotFoundError:
        raise NotFound(f"there is nothing at '{location}'") from None
    except PermissionError:
        raise PermissionDenied(f"'{location}' may not be read with these credentials") from None
    return copy if alone is None else copy / name


def cache_folder(given: Path | None) -> Path:
    """Where copies are kept: ``given``, or the user's cache folder.

    Raises:
        RuntimeError: this user has no home.
    """
    if given:
        return given
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfade"


def remote_place(location: str, cache: Path | None) -> tuple[Any, str, Path]:
    """The file system of a URL, the path on it, and where copies are kept.

    Raises:
        NotFound: there is no such file system.
        MissingExtra: it needs a package that is not installed.
    """
    import fsspec

    scheme = location.partition("://")[0]
    try:
        file_system, root_path = fsspec.core.url_to_fs(location)
    except (ImportError, ValueError) as error:
        package = {"gs": "gcsfs", "s3": "s3fs"}.get(scheme)
        if package is None:
            raise NotFound(f"'{scheme}://' is not a file system that fsspec knows") from error
        raise MissingExtra(scheme, f"models at {scheme}://") from error
    key = hashlib.sha256(location.encode()).hexdigest()[:16]
    return file_system, root_path, cache_folder(cache) / key


def read_folder(name: str, folder: Path, override: ModelConfig | None = None) -> ModelFiles:
    """Reads a model's folder on the local disk, under any name."""
    return read_model(
        name, dict(_walk(folder)), lambda path: (folder / path).read_bytes(), override
    )


def no_folder(name: str) -> NotFound:
    """The error for a model whose folder is not there."""
    return NotFound(f"the model repository has no model '{name}'")


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
