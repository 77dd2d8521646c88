"""Features of pictures on disk, so that a frozen backbone sees each picture once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.backbones.backbone import require_finite

_log = logging.getLogger(__name__)
_BATCH: Final = 32
_SUFFIX: Final = ".features"
_DIGEST_BYTES: Final = 32


class FeatureCache:
    """Rows of features by the hashes of backbone, preprocessing and picture.

    An entry carries its own digest: one that is damaged is computed again. Entries that were read
    longest ago go first when the cache is full; a disk that is full costs time and nothing else.
    Several processes may share a folder; one object is not thread-safe.

    Attributes:
        hits, misses: pictures so far.
    """

    def __init__(self, folder: Path, backbone: str, preprocessing: str, limit_bytes: int) -> None:
        """Opens it.

        Args:
            folder: made where it is not there.
            backbone: digest of what computes the features.
            preprocessing: what else they depend on, in words: size, filter, pooling.
            limit_bytes: of all entries in the folder, also those of other backbones.

        Raises:
            FailedPrecondition: there can be no such folder.
        """
        self._folder, self._limit = folder, limit_bytes
        self._key = hashlib.sha256(f"{backbone}\0{preprocessing}".encode())
        self.hits = self.misses = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FailedPrecondition(
                f"the feature cache cannot be at '{folder.name}': {error.strerror}"
            ) from error
        self._size = sum(size for _, size, _ in self._entries())

    def rows(self, pictures: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Features of pictures.

        Args:
            pictures: uint8 [n, channels, height, width].
            compute: features, float32 [m, c], of m pictures.

        Raises:
            FailedPrecondition: features are not finite.
        """
        paths = [self._path(picture) for picture in pictures]
        found = [_read(path) for path in paths]
        missing = [i for i, row in enumerate(found) if row is None]
        self.misses += len(missing)
        self.hits += len(found) - len(missing)
        for start in range(0, len(missing), _BATCH):
            some = missing[start : start + _BATCH]
            with torch.no_grad():
                fresh = require_finite(compute(pictures[some])).cpu().contiguous()
            for index, row in zip(some, fresh, strict=True):
                found[index] = row
                self._write(paths[index], row)
        return torch.stack([row for row in found if row is not None])

    def _path(self, picture: Tensor) -> Path:
        key = self._key.copy()
        array = np.ascontiguousarray(picture.numpy())
        key.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        name = key.hexdigest()
        return self._folder / name[:2] / f"{name[2:]}{_SUFFIX}"

    def _write(self, path: Path, row: Tensor) -> None:
        content = row.numpy().astype("<f4").tobytes()
        if len(content) + _DIGEST_BYTES > self._limit:
            return
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            unfinished.write_bytes(hashlib.sha256(content).digest() + content)
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            _log.warning("a feature is not cached: %s", error.strerror)
            return
        self._size += len(content) + _DIGEST_BYTES
        if self._size > self._limit:
            self._evict()

    def _evict(self) -> None:
        """Removes the oldest until a tenth is free."""
        entries = sorted(self._entries())
        self._size = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if self._size <= self._limit * 0.9:
                break
            path.unlink(missing_ok=True)
            self._size -= size

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.glob(f"??/*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found


def _read(path: Path) -> Tensor | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
        path.unlink(missing_ok=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return torch.from_numpy(np.frombuffer(content[_DIGEST_BYTES:], "<f4").copy())
