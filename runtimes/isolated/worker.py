"""The worker process: loads one version with its one runtime, and answers runs.

    python -c BOOT PACKAGE CONTROL PARENT

It may run in another environment than its server (``process.py``): besides the runtime's library
it needs numpy and ml_dtypes, and imports nothing else.
"""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.isolated import limits

_log = logging.getLogger(__name__)
# A trial run's inputs: a model that wants more for one request is refused.
_MAX_TRIAL_BYTES: Final = 1 << 30


def main() -> None:
    """Loads, tells what was loaded or why not, and answers until the control socket ends."""
    control_descriptor, parent = int(sys.argv[2]), int(sys.argv[3])
    limits.die_with(parent)
    faulthandler.enable()
    from crossfade.runtimes.isolated.frames import Frames

    control = Frames(socket.socket(fileno=control_descriptor))
    setup = control.receive()
    limits.limit(setup["memory_bytes"])
    logging.basicConfig(
        level=setup["log_level"], format="%(levelname)s:%(name)s: %(message)s", stream=sys.stderr
    )
    try:
        _serve(control, setup)
    finally:
        os._exit(0)  # whatever threads a library has left running


def _serve(control: Any, setup: dict[str, Any]) -> None:
    from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
    from crossfade.runtimes.isolated import facts
    from crossfade.runtimes.isolated.frames import Broken
    from crossfade.runtimes.isolated.signatures import plain, plain_error

    try:
        session = _load(setup)
        told = facts.plain(session)
        if setup["trial"]:
            _try(session)
            session.close()
    except CrossfadeError as error:
        control.send({"error": plain_error(error)})
        return
    except MemoryError:
        control.send({"error": plain_error(LoadFailed(_TOO_MUCH))})
        return
    except Exception as error:
        _log.exception("loading failed")
        said = LoadFailed(f"the runtime failed: {type(error).__name__}; see the server's log")
        control.send({"error": plain_error(said)})
        return
    control.send({"signatures": plain(session.signatures), "facts": told})
    for lane in setup["lanes"]:
        threading.Thread(target=_answer, args=(session, *lane), daemon=True).start()
    try:
        control.receive()  # says that it is over, or ends because the server has
        session.close()
    except Broken:
        pass


_TOO_MUCH: Final = "the model needs more memory than its worker process may have"


def _load(setup: dict[str, Any]) -> Any:
    from crossfade.runtimes import trust
    from crossfade.runtimes.checked_options import CheckedOptions
    from crossfade.runtimes.core.model import Artifact

    trust.allow([path for folder in setup["trusted"] if (path := Path(folder)).is_dir()])
    module, _, name = setup["runtime"].partition(":")
    values = setup["options"]
    artifact = Artifact(
        Path(setup["path"]),
        setup["name"],
        setup["version"],
        setup["instances"],
        CheckedOptions(values) if setup["options_checked"] else values,
    )
    return getattr(importlib.import_module(module), name)().load(artifact)


def _try(session: Any) -> None:
    """Runs once with zeros, for crashes that come with the first run; refusals are fine.

    Raises:
        LoadFailed: one request takes more memory than there is.
    """
    import numpy as np

    from crossfade.runtimes.core.dtypes import NUMPY
    from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed, ResourceExhausted
    from crossfade.runtimes.core.model import DEFAULT_SIGNATURE

    names = session.signatures
    name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else next(iter(names))
    inputs = {}
    for spec in names[name].inputs:
        shape = [1 if size == -1 else size for size in spec.shape or ()]
        size = NUMPY[spec.dtype].itemsize
        for length in shape:
            size *= length
        if size > _MAX_TRIAL_BYTES:
            raise LoadFailed(
                f"input '{spec.name}' is declared with {size} bytes for one request, more than any"
                " request may have"
            )
        if not spec.optional:
            zeros = b"" if spec.dtype == "BYTES" else 0
            inputs[spec.name] = np.full(shape, zeros, NUMPY[spec.dtype])
    try:
        session.run(inputs, name, ())
    except (MemoryError, ResourceExhausted):
        raise LoadFailed(f"for one request of zeros {_TOO_MUCH}") from None
    except CrossfadeError:
        pass


def _answer(session: Any, socket_descriptor: int, memory_descriptor: int) -> None:
    """Answers the runs of one lane, one after the other."""
    from crossfade.runtimes.isolated.arena import Arena
    from crossfade.runtimes.isolated.frames import Broken, Frames

    frames = Frames(socket.socket(fileno=socket_descriptor))
    arena = Arena(memory_descriptor)
    while True:
        try:
            request = frames.receive()
            frames.send(_run(session, arena, request))
        except Broken:
            return


def _run(session: Any, arena: Any, request: dict[str, Any]) -> dict[str, Any]:
    from crossfade.runtimes.core.errors import CrossfadeError, Internal, ResourceExhausted
    from crossfade.runtimes.isolated.signatures import plain_error

    try:
        inputs = arena.read(request["inputs"], copy=False)
        for array in inputs.values():
            array.flags.writeable = False
        outputs = session.run(inputs, request["signature"], request["outputs"])
        # Behind the inputs: an output may be a view of one.
        places, _ = arena.write(outputs, request["end"])
        return {"outputs": places}
    except CrossfadeError as error:
        return {"error": plain_error(error)}
    except MemoryError:
        full = ResourceExhausted("there is not enough memory for a run of these sizes")
        return {"error": plain_error(full)}
    except Exception as error:
        return {"error": plain_error(Internal.hide(error, _log, "a run"))}
