"""Facts of a run that nobody has to type: environment, revision, digests, parity."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from crossfade import __version__
from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.serving.repository.lineage import Parity, digest_file

_PACKAGES: Final = ("torch", "numpy", "onnx", "onnxruntime", "scikit-learn", "pillow")
_GIT_TIMEOUT_S: Final = 10.0
Arrays = npt.NDArray[np.generic]


def environment(device: torch.device, world: int = 1) -> dict[str, str]:
    """Versions of what took part, by name, and where it ran."""
    found = {"crossfade": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {**found, "system": platform.system(), "device": name, "processes": str(world)}


def revision(folder: Path) -> str | None:
    """The git commit of ``folder``, ``-dirty`` if files differ from it; ``None`` outside of git."""
    head = _git(folder, "rev-parse", "HEAD")
    if not head:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head.strip()}{'-dirty' if changed else ''}"


def now() -> str:
    """UTC in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


def parity(
    trained: Callable[[Arrays], Arrays],
    written: Callable[[Arrays], Arrays],
    batches: Sequence[Arrays],
    tolerance: float = 1e-4,
) -> Parity:
    """Compares the answers of a trained module and of the file that was written of it.

    Raises:
        FailedPrecondition: they differ by more than ``tolerance``, or are not finite.
    """
    worst = 0.0
    for batch in batches:
        ours, theirs = trained(batch), written(batch)
        difference = float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))
        worst = difference if np.isnan(difference) else max(worst, difference)
        if not worst <= tolerance:
            raise FailedPrecondition(
                f"the written file answers otherwise than the trained module (by {worst:.3g}, and"
                f" {tolerance:g} is allowed): nothing was written"
            )
    return Parity(max_abs=worst, tolerance=tolerance, inputs=sum(map(len, batches)))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
