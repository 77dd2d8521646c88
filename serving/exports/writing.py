"""Writes a version into a repository so that it is there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import yaml

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
)
from crossfade.serving.exports.entry import Entry, yaml_of
from crossfade.serving.repository.folders import read_folder
from crossfade.serving.repository.layout import MAX_VERSION, OWN_CONFIG, TRITON_CONFIG, check_name

_CHUNK_BYTES: Final = 8 << 20
# Hidden, so that no server takes it for a model.
_SCRATCH: Final = ".import-"
# A version is served right without these, so that what the model has of them stays.
_OPTIONAL: Final = frozenset({"warmup"})
Progress = Callable[[int, int], None]


class Staged:
    """A version that is complete and not yet in its place.

    Attributes:
        folder: a model's folder with this version alone, as a server would read it.
        configured: whether publishing has written its ``model.yaml``.
    """

    def __init__(self, repository: Path, name: str, version: int, folder: Path) -> None:
        self.version = version
        self.folder = folder
        self.configured = False
        self._model = repository / name
        self._name = name

    def publish(self, force: bool) -> Path:
        """Moves it to its place by renaming; returns the version's folder.

        Args:
            force: a version, or a ``model.yaml`` that says otherwise, is replaced.

        Raises:
            AlreadyExists: another import was first, or ``model.yaml`` says otherwise.
        """
        if not self._model.exists():
            with contextlib.suppress(OSError):  # another import has made the model's folder
                os.rename(self.folder, self._model)
                _sync(self._model.parent)
                self.configured = True
                return self._model / str(self.version)
        config = merged(self._model, self.folder, force)
        if config is not None:
            temporary = self.folder / f"{OWN_CONFIG}.new"
            with _durable(temporary) as file:
                file.write(config.encode())
            os.replace(temporary, self._model / OWN_CONFIG)
            self.configured = True
        target = _folder_of(self._model, self._name, self.version) or (
            self._model / str(self.version)
        )
        if target.exists():
            if not force:
                raise _taken(self._name, self.version)
            _exchange(self.folder / str(self.version), target)  # the old one goes with the scratch
            return target
        try:
            os.rename(self.folder / str(self.version), target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise _taken(self._name, self.version) from None
            raise
        _sync(self._model)
        return target


@contextlib.contextmanager
def staged(
    repository: Path,
    name: str,
    entry: Entry,
    *,
    version: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Iterator[Staged]:
    """Copies an entry beside its place, on the same disk; what is not published is removed.

    Args:
        repository: is made where it is not there.
        name: the model's.
        entry: what is written.
        version: ``None`` is the next free one.
        force: a version that is there may be replaced.
        progress: told how many bytes of how many have been copied.

    Raises:
        InvalidArgument: no model may have that name, or no version that number.
        AlreadyExists: the version is there, or ``model.yaml`` says otherwise.
        ResourceExhausted: the disk is full, or a file would be too large for it.
        PermissionDenied: the repository may not be written to.
    """
    check_name(name)
    if version is not None and not 1 <= version <= MAX_VERSION:
        raise InvalidArgument(f"a version is a number from 1 to {MAX_VERSION}")
    try:
        repository.mkdir(parents=True, exist_ok=True)
        number = _free(repository / name, name, version, force)
        scratch = Path(tempfile.mkdtemp(dir=repository, prefix=_SCRATCH))
    except OSError as error:
        raise _not_written(error) from error
    try:
        folder = scratch / name
        _fill(folder, number, entry, progress)
        merged(repository / name, folder, force)  # refused before the work of loading it
        yield Staged(repository, name, number, folder)
    except OSError as error:
        raise _not_written(error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def merged(model: Path, folder: Path, force: bool) -> str | None:
    """The text of ``model.yaml`` to write into a model that is there; ``None`` keeps what it has.

    Args:
        model: the model's folder in the repository.
        folder: the staged one.
        force: keys that say otherwise are replaced, the others kept; comments are lost.

    Raises:
        AlreadyExists: a key that the import needs is missing or says otherwise, and not ``force``.
    """
    wanted = _config(folder)
    if not wanted or not model.exists():
        return None
    if (model / TRITON_CONFIG).exists() and not (model / OWN_CONFIG).exists():
        raise AlreadyExists(
            f"the model has a {TRITON_CONFIG}, and this version needs {', '.join(wanted)} in"
            f" {OWN_CONFIG}: give it another --name"
        )
    had = _config(model)
    differing = [key for key, value in wanted.items() if had.get(key) != value]
    if not differing or (not force and set(differing) <= _OPTIONAL):
        return None
    if not force:
        raise AlreadyExists(
            f"{OWN_CONFIG} of the model that is there says otherwise about {', '.join(differing)},"
            " or nothing: import it under another --name, or replace these keys with --force"
        )
    return yaml_of({**had, **wanted})


def _config(model: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load((model / OWN_CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError):
        raise FailedPrecondition(f"{OWN_CONFIG} of the model that is there is not YAML") from None
    return values if isinstance(values, dict) else {}


def _free(model: Path, name: str, version: int | None, force: bool) -> int:
    if not model.exists():
        return version or 1
    numbers = read_folder(name, model).versions
    if version is None:
        if any(found.folder == "" for found in numbers.values()):
            raise FailedPrecondition(
                f"'{name}' is an export without version folders: give the new one another --name,"
                " or move what is there into a folder '1'"
            )
        return max(numbers, default=0) + 1
    if version in numbers and not force:
        raise _taken(name, version)
    return version


def _folder_of(model: Path, name: str, version: int) -> Path | None:
    """The folder of a version that is there, which may have leading zeros."""
    found = read_folder(name, model).versions.get(version)
    return model / found.folder if found is not None and found.folder else None


def _fill(folder: Path, number: int, entry: Entry, progress: Progress | None) -> None:
    target = folder / str(number)
    target.mkdir(parents=True)
    total, done = entry.size_bytes, 0
    for name, source in entry.files.items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as old, _durable(copy) as new:
            while chunk := old.read(_CHUNK_BYTES):
                new.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
    texts = {target / name: text for name, text in entry.texts.items()}
    if entry.config:
        texts[folder / OWN_CONFIG] = yaml_of(entry.config)
    for path, text in texts.items():
        with _durable(path) as new:
            new.write(text.encode())
    for base, _, _ in os.walk(folder):
        _sync(Path(base))


def _exchange(new: Path, old: Path) -> None:
    """Swaps two folders in one step where the C library can, else with a moment in between."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = -100  # AT_FDCWD
    exchange = 2  # RENAME_EXCHANGE
    swap = getattr(libc, "renameat2", None)
    if swap is None or swap(here, os.fsencode(new), here, os.fsencode(old), exchange):
        aside = new.with_name("replaced")
        os.rename(old, aside)
        os.rename(new, old)
    _sync(old.parent)


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when it is closed."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """A rename is on the disk once its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _taken(name: str, version: int) -> AlreadyExists:
    return AlreadyExists(
        f"'{name}' has a version {version}: leave --version out for the next free one, or replace"
        " it with --force"
    )


def _not_written(error: OSError) -> ResourceExhausted | PermissionDenied | FailedPrecondition:
    said = f"nothing was written: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceExhausted(said)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(said)
    return FailedPrecondition(said)
