"""A run's folder: what it was told, how far it is, what came of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import FailedPrecondition

_TOLD: Final = "run.json"
_RESULT: Final = "result.json"
_LOCK: Final = "lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder; made where it is not there.

    A run that fails before it wrote anything leaves nothing behind.

    Raises:
        FailedPrecondition: another process is at work in it.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that just failed may have removed what was opened here.
            ours = os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except OSError:
            ours = False
        if not ours:
            raise FailedPrecondition(f"another process is at work on the run '{folder.name}'")
        try:
            yield
        except BaseException:
            if os.listdir(folder) == [_LOCK]:
                path.unlink()
                with contextlib.suppress(OSError):  # another run has begun beside this one
                    for place in new:
                        place.rmdir()
            raise


def begin(folder: Path, told: Mapping[str, Any]) -> None:
    """Writes down what the run was told, or compares it with what it was told before.

    Raises:
        FailedPrecondition: it was told otherwise, or is complete.
    """
    if (folder / _RESULT).exists():
        made = json.loads((folder / _RESULT).read_text("utf-8"))
        raise FailedPrecondition(
            f"the run '{folder.name}' is complete: it made {made['made']}; name another --run-dir"
        )
    wanted = json.loads(json.dumps(told))
    path = folder / _TOLD
    if not path.exists():
        _write(path, wanted)
        return
    had = json.loads(path.read_text("utf-8"))
    differing = sorted(_differing(had, wanted))
    if differing:
        raise FailedPrecondition(
            f"the run '{folder.name}' was begun with another {', '.join(differing)}: go on with"
            " the same, or name another --run-dir"
        )


def finish(folder: Path, made: str, metrics: Mapping[str, float]) -> None:
    """Writes down what came of it."""
    _write(folder / _RESULT, {"made": made, "metrics": dict(metrics)})


def _differing(had: Any, wanted: Any, at: str = "") -> Iterator[str]:
    if isinstance(had, dict) and isinstance(wanted, dict):
        for key in had.keys() | wanted.keys():
            yield from _differing(had.get(key), wanted.get(key), f"{at}.{key}" if at else key)
    elif had != wanted:
        yield at


def _write(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    os.replace(temporary, path)
