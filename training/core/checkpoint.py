"""Checkpoints: safetensors and JSON, there as a whole or not at all.

``<folder>/step-000000120/`` has ``tensors.safetensors`` and ``state.json``, which has the digest
of the first. Both are written into a hidden folder, synced, and renamed into place: a process that
is killed, or a disk that is full, leaves the checkpoints before it as they were.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load, save

from crossfade.runtimes.core.errors import FailedPrecondition, ResourceExhausted
from crossfade.training.core import tree

_TENSORS: Final = "tensors.safetensors"
_STATE: Final = "state.json"
_PREFIX: Final = "step-"
_SCRATCH: Final = ".writing-"
_FORMAT: Final = 1
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_logger = logging.getLogger(__name__)


def write(folder: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Writes one checkpoint, then removes all but the newest ``keep``.

    Args:
        folder: of the run's checkpoints; made where it is not there.
        step: updates of the weights so far.
        state: nested dictionaries, lists, tuples, numbers, text and tensors.
        keep: at least 1.

    Raises:
        ResourceExhausted: the disk is full; the earlier checkpoints are as they were.
        TypeError: ``state`` holds something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    plain = tree.split(state, "", tensors)
    target = folder / f"{_PREFIX}{step:09d}"
    scratch = folder / f"{_SCRATCH}{step:09d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_SCRATCH}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        scratch.mkdir()
        packed = save(tensors)
        _write(scratch / _TENSORS, packed)
        digest = hashlib.sha256(packed).hexdigest()
        document = {"format": _FORMAT, "step": step, "sha256": digest, "state": plain}
        _write(scratch / _STATE, json.dumps(document).encode())
        _sync(scratch)
        if target.exists():  # a run that went back to an earlier checkpoint comes by again
            shutil.rmtree(target)
        os.rename(scratch, target)
        _sync(folder)
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted(
                f"the disk is full: the checkpoint of step {step} was not written, those before"
                " it are as they were"
            ) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in _all(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def latest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The newest checkpoint that can be read, as its step and state; ``None`` without any.

    One that is damaged is passed over with a warning.

    Raises:
        FailedPrecondition: all there are, are damaged.
    """
    found = _all(folder)
    for path in found:
        with contextlib.suppress(FailedPrecondition):
            return read(path)
        _logger.warning("%s is damaged; the checkpoint before it is taken", path.name)
    if found:
        raise FailedPrecondition(
            f"none of the {len(found)} checkpoints can be read: remove the run's folder to begin"
            " anew"
        )
    return None


def read(path: Path) -> tuple[int, dict[str, Any]]:
    """One checkpoint's step and state, its tensors on the CPU.

    Raises:
        FailedPrecondition: it is damaged, or of another format.
    """
    try:
        document = json.loads((path / _STATE).read_bytes())
        packed = (path / _TENSORS).read_bytes()
        known = document["format"] == _FORMAT
        whole = hashlib.sha256(packed).hexdigest() == document["sha256"]
        step, state = int(document["step"]), document["state"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"the checkpoint '{path.name}' cannot be read") from error
    if not known or not whole:
        wrong = "is damaged" if known else "is of another version of Crossfade"
        raise FailedPrecondition(f"the checkpoint '{path.name}' {wrong}")
    joined: dict[str, Any] = tree.join(state, load(packed))
    return step, joined


def _all(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob(f"{_PREFIX}*"), reverse=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
