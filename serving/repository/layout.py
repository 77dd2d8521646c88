"""Reads one model's folder, whatever laid it out, from a listing of its files.

Understood: ours (``model.yaml``, ``<int>/…``), TensorFlow Serving's (``<int>/saved_model.pb``),
Triton's (``config.pbtxt``, ``<int>/model.onnx``) and an unpacked export without version folders
(``model.tflite`` and ``dict.txt`` side by side), which is version 1; so is a ``model.yaml`` alone
that names a platform without files (``remote``), or an ensemble.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    InvalidArgument,
    LoadFailed,
    NotFound,
    escape,
)
from crossfade.runtimes.registry import entries, is_indirect
from crossfade.serving.config import model_config
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.repository import triton_config

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_VERSION: Final = 2**63 - 1
_VERSION: Final = re.compile(r"[0-9]{1,19}")
OWN_CONFIG: Final = "model.yaml"
TRITON_CONFIG: Final = "config.pbtxt"
LABEL_FILES: Final = ("labels.txt", "dict.txt")


@dataclasses.dataclass(frozen=True, slots=True)
class FileInfo:
    """One file: its size and a stamp (time, etag) that changes when its content does."""

    size_bytes: int
    stamp: str


@dataclasses.dataclass(frozen=True, slots=True)
class VersionFiles:
    """One version's files.

    Attributes:
        folder: below the model's folder; empty where the model's folder is the version.
        fingerprint: changes when any file of the version, or the configuration, does.
    """

    version: int
    folder: str
    files: Mapping[str, FileInfo]
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model's folder.

    Attributes:
        error: why the configuration cannot be used; versions are then not loaded.
        label_files: content of the label files in the model's folder by name.
    """

    name: str
    config: ModelConfig
    versions: Mapping[int, VersionFiles]
    label_files: Mapping[str, str]
    error: str | None = None


def check_name(name: str) -> str:
    """Returns ``name`` if a model may have it.

    Raises:
        InvalidArgument: the name is empty or has characters that a model's name may not have.
    """
    if not name.strip():
        raise InvalidArgument("the request names no model")
    if any(part in name for part in ("/", "\\", "..")):
        raise InvalidArgument(
            f"model name must not contain path traversal characters: '{escape(name)}'"
        )
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f"'{escape(name)}' is not a model name: it has other characters than letters, digits,"
            " '.', '_' and '-', or more than 128"
        )
    return name


def unknown_model(name: str) -> CrossfadeError:
    """The error for a name that no served model has; control characters make it invalid."""
    if not name.strip() or any(ord(character) < 32 for character in name):
        try:
            check_name(name)
        except InvalidArgument as error:
            return error
    return NotFound(f"Request for unknown model: '{escape(name)}' is not found")


def is_model(names: Iterable[str]) -> bool:
    """Whether a folder is one model's, by the names in it (a folder's ends in ``/``).

    It then has a configuration, version folders, or something that a runtime opens; a repository
    has folders with other names than numbers, and no more.
    """
    found = set(names)
    if found & {OWN_CONFIG, TRITON_CONFIG}:
        return True
    folders = (name.removesuffix("/") for name in found if name.endswith("/"))
    return any(map(_is_number, folders)) or _is_opened(found)


def _is_number(folder: str) -> bool:
    """Whether a folder of that name is a version's."""
    return _VERSION.fullmatch(folder) is not None and 0 < int(folder) <= MAX_VERSION


def read_model(
    name: str,
    files: Mapping[str, FileInfo],
    read: Callable[[str], bytes],
    override: ModelConfig | None = None,
) -> ModelFiles:
    """Reads a model's folder.

    Args:
        name: the model's name, which is its folder's.
        files: every file below the folder, by path relative to it with ``/``.
        read: reads one of them.
        override: counts instead of the folder's own configuration.
    """
    error = None
    config = override or ModelConfig()
    try:
        config = override or _read_config(files, read)
    except CrossfadeError as failure:
        error = failure.message
    stamp = f"-{hashlib.sha256(repr(override).encode()).hexdigest()}" if override else ""
    folders: dict[str, dict[str, FileInfo]] = {}
    for path, info in files.items():
        folder, slash, rest = path.partition("/")
        if slash and _is_number(folder):
            folders.setdefault(folder, {})[rest] = info
    if not folders and _is_version(files, config):
        folders[""] = dict(files)
    shared = {path: info for path, info in files.items() if "/" not in path}
    wanted = {*LABEL_FILES, *(out.labels_file for out in config.outputs)}
    labels = {path: read(path).decode("utf-8", "replace") for path in shared if path in wanted}
    versions: dict[int, VersionFiles] = {}
    for folder in sorted(folders):
        number = int(folder or 1)
        if number in versions:
            error = error or f"version {number} has two folders"
        found = folders[folder]
        described = {**shared, **{f"{folder}/{p}": i for p, i in found.items()}}
        mark = fingerprint(described) + stamp
        versions[number] = VersionFiles(number, folder, found, mark)
    return ModelFiles(name, config, versions, labels, error)


def _read_config(files: Mapping[str, FileInfo], read: Callable[[str], bytes]) -> ModelConfig:
    for file, parse in ((OWN_CONFIG, model_config.parse), (TRITON_CONFIG, triton_config.parse)):
        if file in files:
            try:
                return parse(read(file).decode("utf-8"), file)
            except UnicodeDecodeError:
                raise LoadFailed(f"{file}: not UTF-8 text") from None
    return ModelConfig()


def _is_version(files: Mapping[str, FileInfo], config: ModelConfig) -> bool:
    """Whether the model's folder itself is a version: a runtime opens it, or needs no files."""
    if config.ensemble is not None or is_indirect(config.platform):
        return True
    names = {path.partition("/")[0] + ("/" if "/" in path else "") for path in files}
    return config.default_filename in names or _is_opened(names)


def _is_opened(names: Iterable[str]) -> bool:
    return any(entry.opens(name) for name in names for entry in entries().values())


def fingerprint(files: Mapping[str, FileInfo]) -> str:
    """Changes when any of the files does."""
    lines = (f"{path}\0{info.size_bytes}\0{info.stamp}\n" for path, info in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
