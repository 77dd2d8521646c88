"""A peer's virtual environment: made once from a pinned list, remade when the list changes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.progress import progress

INSTALL_TIMEOUT_S = 1800
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
_STAMP = "installed-requirements.txt"


def prepare_venv(folder: Path, requirements: Path) -> None:
    """Make a virtual environment with the packages of a requirements file.

    Args:
        folder: Of the virtual environment.
        requirements: Exact versions of all packages.

    Raises:
        PeerUnavailableError: pip failed; the message is the end of what it said.
    """
    stamp, wanted = folder / _STAMP, requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    progress(f"installing {requirements.name} into {folder} (some minutes, once)")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--requirement", str(requirements)])
    stamp.write_text(wanted)


def venv_versions(requirements: Path, packages: Sequence[str]) -> Mapping[str, str]:
    """The pinned versions of some packages of a requirements file."""
    pinned = dict(
        line.split("==", 1) for line in requirements.read_text().splitlines() if "==" in line
    )
    return {package: pinned[package] for package in packages}


def _run(command: Sequence[str]) -> None:
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailableError(f"installing took more than {error.timeout:.0f} s") from error
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if "WARNING" not in line]
        raise PeerUnavailableError("installing failed: " + " ".join(lines)[-500:])
