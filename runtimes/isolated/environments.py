"""Environments for workers: interpreters with packages of their own, made from pinned lists."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    LoadFailed,
    NotFound,
    Unavailable,
    escape,
)

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STDERR: Final = 2  # by number: what pip says there is its own
_PROOF: Final = "import sys, numpy, ml_dtypes; sys.exit(sys.version_info < (3, 11))"


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """An environment that can be made.

    Attributes:
        requirements: the file beside this one that pins each package by hash.
        python: the interpreter that its wheels are for.
        machine: the processor that they are for.
    """

    summary: str
    requirements: str
    python: str
    machine: str


KNOWN: Final[Mapping[str, Known]] = {
    "automl-tabular": Known(
        "TensorFlow 2.17 with struct2tensor's ops, for AutoML's tabular exports",
        "automl-tabular.txt",
        "3.11",
        "x86_64",
    ),
}


def default_folder() -> Path:
    """Where environments are, unless somebody says otherwise."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "crossfade" / "environments"


def interpreter(name: str, folder: Path | None = None) -> Path:
    """The Python of an environment.

    Raises:
        LoadFailed: there is no such environment, and how it is made.
    """
    found = (folder or default_folder()) / _checked(name, LoadFailed) / "bin" / "python"
    if not found.exists():
        how = (
            f"`crossfade env create {name}` makes it"
            if name in KNOWN
            else f"known are {', '.join(KNOWN)}; others are folders with bin/python"
        )
        raise LoadFailed(f"there is no environment '{name}' on this machine; {how}")
    return found


def installed(folder: Path) -> list[str]:
    """Names of the environments that are there, sorted."""
    if not folder.is_dir():
        return []
    return sorted(p.parent.parent.name for p in folder.glob("[!.]*/bin/python"))


def create(name: str, folder: Path, say: Callable[[str], None]) -> Path:
    """Makes a known environment, whole or not at all; takes minutes.

    Args:
        name: one of ``KNOWN``.
        folder: where environments are.
        say: told what is being done.

    Returns:
        Its Python.

    Raises:
        NotFound: no environment of that name is known.
        AlreadyExists: it is there.
        FailedPrecondition: this machine cannot have it.
        Unavailable: a package could not be fetched or is not the one that was pinned.
    """
    known = KNOWN.get(name)
    if known is None:
        raise NotFound(f"no environment '{escape(name)}' is known; there is {', '.join(KNOWN)}")
    target = folder / name
    if target.exists():
        raise AlreadyExists(f"'{name}' is there already; `crossfade env remove {name}` removes it")
    if platform.machine() != known.machine or sys.platform != "linux":
        raise FailedPrecondition(
            f"'{name}' is for Linux on {known.machine} only: its packages have no others"
        )
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        python = scratch / "bin" / "python"
        for what, command in _steps(known, scratch):
            say(what)
            done = subprocess.run(command, stdout=_STDERR, check=False)
            if done.returncode:
                raise Unavailable(f"{what} failed; what was said above tells why")
        if subprocess.run([python, "-I", "-c", _PROOF], check=False).returncode:
            raise Unavailable("the environment was made and does not work")
        # Nothing in it but bin/python is used, and that finds its packages wherever it lies.
        try:
            scratch.rename(target)
        except OSError:
            raise AlreadyExists(f"somebody else has made '{name}' meanwhile") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target / "bin" / "python"


def remove(name: str, folder: Path) -> None:
    """Removes an environment; one that is half removed is none.

    Raises:
        NotFound: it is not there.
    """
    target = folder / _checked(name, InvalidArgument)
    if not target.is_dir():
        raise NotFound(f"there is no environment '{name}'")
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    target.rename(scratch / "old")
    shutil.rmtree(scratch)


def _checked(name: str, error: type[LoadFailed | InvalidArgument]) -> str:
    if not NAME.fullmatch(name):
        raise error(f"'{escape(name)}' is no name that an environment may have")
    return name


def _steps(known: Known, folder: Path) -> list[tuple[str, list[str]]]:
    """What makes an environment: a few words on each step, and its command."""
    requirements = ["-r", str(Path(__file__).with_name(known.requirements))]
    strict = ["--no-deps", "--require-hashes", *requirements]
    python = str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        return [
            (
                f"making an environment of Python {known.python} with uv",
                [uv, "venv", "--allow-existing", "--python", known.python, str(folder)],
            ),
            (
                "installing the packages",
                [uv, "pip", "install", "--only-binary", ":all:", "--python", python, *strict],
            ),
        ]
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--only-binary", ":all:"]
    return [
        (
            f"making an environment of Python {known.python} with venv",
            [_base(known.python), "-m", "venv", "--clear", str(folder)],
        ),
        ("installing the packages", [*pip, *strict]),
    ]


def _base(version: str) -> str:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = sys.executable if own == version else shutil.which(f"python{version}")
    if found is None:
        raise FailedPrecondition(f"it needs uv, or Python {version} as 'python{version}'")
    return found
