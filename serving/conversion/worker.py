"""The child process of a conversion: ``python -m crossfade.serving.conversion.worker JOB``.

Converters and runtimes crash, print what they like and take gigabytes: none of that is the
command's. What they print goes to standard error, which the command keeps as a log; standard
output carries one JSON object a line: ``{"say": …}``, then ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.reason import one_line
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.targets import TARGETS, steps

_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Does one job; returns the exit code."""
    # Die with the command, however it ends.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    def say(text: str) -> None:
        send(say=text)

    job = Job.from_json(Path(sys.argv[1]).read_text())
    try:
        send(result=_prove(job, say) if job.step == "prove" else _convert(job, say))
    except CrossfadeError as error:
        send(error=error.message)
    except MemoryError:
        send(error="there was not enough memory")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        send(
            error="the disk is full" if full else f"it failed: {error.strerror or one_line(error)}"
        )
        _log()
    except Exception as error:
        send(error=f"it failed: {one_line(error)}")
        _log()
    else:
        return 0
    return 1


def _log() -> None:
    with contextlib.suppress(OSError):  # the log may lie on the disk that is full
        traceback.print_exc()


def _convert(job: Job, say: Any) -> Any:
    job.version_folder.mkdir(parents=True, exist_ok=True)
    job.scratch.mkdir(parents=True, exist_ok=True)
    names = steps(job.platform, job.target)
    source: Path | None = None
    for index, name in enumerate(names):
        converter = importlib.import_module(f"crossfade.serving.conversion.{name}")
        made: Made = (
            converter.convert(job, say) if index == 0 else converter.convert(job, say, source)
        )
        job = dataclasses.replace(job, made=made)
        if index + 1 < len(names):
            source = job.scratch / "between.onnx"
            os.replace(job.version_folder / TARGETS["onnx"].file, source)
    return dataclasses.asdict(job.made)


def _prove(job: Job, say: Any) -> Any:
    from crossfade.serving.conversion import proof

    return proof.prove(job, say)


if __name__ == "__main__":
    sys.exit(main())
