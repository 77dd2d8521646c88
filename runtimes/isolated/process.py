"""One worker process as its server sees it: started, loaded, asked, ended."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import crossfade
from crossfade.runtimes.core.errors import (
    DeadlineExceeded,
    Internal,
    LoadFailed,
    Unavailable,
)
from crossfade.runtimes.core.model import Artifact, Signature, Tensors
from crossfade.runtimes.isolated import facts, signatures
from crossfade.runtimes.isolated.arena import Misplaced
from crossfade.runtimes.isolated.facts import Facts
from crossfade.runtimes.isolated.frames import Broken, Frames
from crossfade.runtimes.isolated.lane import Lane

_log = logging.getLogger(__name__)
# Makes ``crossfade`` importable by its place alone: a path to site-packages would bring all that
# the server has installed into an environment that was made to be without it.
_BOOT: Final = """\
import sys
if sys.version_info < (3, 11): sys.exit("crossfade needs Python 3.11 or newer in an environment")
import importlib.util as util
spec = util.spec_from_file_location("crossfade", sys.argv[1] + "/__init__.py",
                                    submodule_search_locations=[sys.argv[1]])
sys.modules["crossfade"] = module = util.module_from_spec(spec)
spec.loader.exec_module(module)
from crossfade.runtimes.isolated.worker import main
main()
"""
_PACKAGE: Final = Path(crossfade.__file__).parent
# How long a worker that was told to end may take for it.
_END_S: Final = 2.0
_MAX_LINE: Final = 2000  # characters of a log line
# When to try again after a worker's end; a restart often takes longer, and then says so itself.
_RETRY_S: Final = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to load, and how.

    Attributes:
        runtime: the runtime's class, as ``package.module:Class``.
        artifact: what it loads.
        options: the artifact's, as JSON has them.
        options_checked: they are complete, defaults among them.
        python: another interpreter; ``None`` is the server's own.
        memory_bytes: private memory that the worker may have; ``None`` is no limit.
        load_timeout_s: a load that takes longer has failed.
        run_timeout_s: a run that takes longer ends the worker; ``None`` is no limit.
        trial: only load, run once and end: nothing else is asked of this worker.
        trusted: folders whose Python code the worker may run, as the server's operator named them.
    """

    runtime: str
    artifact: Artifact
    options: Mapping[str, Any]
    options_checked: bool = False
    python: Path | None = None
    memory_bytes: int | None = None
    load_timeout_s: float = 300.0
    run_timeout_s: float | None = None
    trial: bool = False
    trusted: tuple[Path, ...] = ()


class Crashed(LoadFailed):
    """The worker ended, or was ended, before it could say what it had loaded."""


class WorkerProcess:
    """A worker that has loaded its version. ``run`` is thread-safe.

    It must be made by a thread that lives as long as it: the kernel kills a child when the
    thread that started it ends.

    Raises:
        LoadFailed, MissingExtra: it could not load; ``Crashed`` if it ended or took too long.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._lanes = [] if task.trial else [Lane() for _ in range(task.artifact.instances)]
        self._idle = collections.deque(self._lanes)
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each idle lane
        self._over = False
        for _ in self._lanes:
            self._tokens.put(None)
        here, there = socket.socketpair()
        self._control = Frames(here)
        try:
            self._process = _start(task, there, self._lanes)
        except OSError as error:
            self._close_lanes()
            here.close()
            raise LoadFailed(f"the worker process did not start: {error.strerror}") from error
        finally:
            there.close()
        threading.Thread(target=self._forward, name="worker-log", daemon=True).start()
        for lane in self._lanes:
            lane.there.close()  # or the end of the worker would not end the socket
        try:
            self.signatures, self.facts = self._load()
        except BaseException:
            self.end(0)
            raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def run(
        self, inputs: Tensors, signature: str, outputs: Sequence[str], deadline_s: float | None
    ) -> Tensors:
        """See ``Session.run``.

        Raises:
            Unavailable: the worker ended.
            DeadlineExceeded: the caller's time is up; the worker goes on, for nobody.
        """
        try:
            lane = self._take(deadline_s)
            try:
                return self._ask(lane, inputs, signature, outputs, deadline_s)
            finally:
                self._give(lane)
        except Broken as error:
            raise Unavailable(
                "the model's worker process ended; it is started again", retry_after_s=_RETRY_S
            ) from error
        except Misplaced as error:
            self.kill()
            raise Internal.hide(error, _log, f"model {self._task.artifact.name}") from error

    def wait(self) -> str:
        """Waits for the end of the process; says how it ended."""
        return _how(self._process.wait())

    def kill(self) -> None:
        """Ends it at once; ``wait`` then returns."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def ask_end(self) -> None:
        """Asks it to close its session and to end; ``wait`` then returns."""
        with contextlib.suppress(Broken):
            self._control.send({"end": True})

    def end(self, patience_s: float = _END_S) -> str:
        """Kills what does not end in time, and gives everything back. Once."""
        try:
            how = _how(self._process.wait(patience_s))
        except subprocess.TimeoutExpired:
            self.kill()
            how = self.wait()
        self._control.close()
        self._close_lanes()
        return how

    def resident_bytes(self) -> int:
        """Memory of the process that is in RAM; 0 where it has ended."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _load(self) -> tuple[Mapping[str, Signature], Facts]:
        task, artifact = self._task, self._task.artifact
        try:
            self._control.send(
                {
                    "runtime": task.runtime,
                    "path": str(artifact.path.absolute()),
                    "name": artifact.name,
                    "version": artifact.version,
                    "instances": artifact.instances,
                    "options": dict(task.options),
                    "options_checked": task.options_checked,
                    "memory_bytes": task.memory_bytes,
                    "log_level": logging.getLogger().getEffectiveLevel(),
                    "lanes": [lane.passed for lane in self._lanes],
                    "trial": task.trial,
                    "trusted": list(map(str, task.trusted)),
                }
            )
            told = self._control.receive(time.monotonic() + task.load_timeout_s)
        except TimeoutError:
            raise Crashed(
                f"loading took more than {task.load_timeout_s:g} s in the worker process"
            ) from None
        except Broken:
            how = self.wait()
            raise Crashed(
                f"the worker process {how} while it loaded the model: its files are broken or"
                " hostile, or they need more memory than there is"
            ) from None
        if "error" in told:
            raise signatures.load_error_of(told["error"])
        return signatures.read(told.get("signatures")), facts.read(told.get("facts"))

    def _ask(
        self,
        lane: Lane,
        inputs: Tensors,
        signature: str,
        outputs: Sequence[str],
        deadline_s: float | None,
    ) -> Tensors:
        limit_s = self._task.run_timeout_s
        hung_s = None if limit_s is None else time.monotonic() + limit_s
        until_s = min((t for t in (deadline_s, hung_s) if t is not None), default=None)
        try:
            return lane.ask(inputs, signature, outputs, until_s)
        except TimeoutError:
            if hung_s is None or until_s != hung_s:
                raise DeadlineExceeded("the deadline passed while the model ran") from None
            self.kill()
            raise Unavailable(
                f"the model took more than {limit_s:g} s for a run; its worker process is"
                " started again",
                retry_after_s=_RETRY_S,
            ) from None

    def _take(self, deadline_s: float | None) -> Lane:
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        try:
            self._tokens.get(timeout=left_s)
        except queue.Empty:
            raise DeadlineExceeded("the deadline passed before the model was free") from None
        if self._over:
            self._tokens.put(None)  # for the next one who waits
            raise Broken("it is over")
        return self._idle.pop()

    def _give(self, lane: Lane) -> None:
        # What was used last is used next, its pages being warm; one that owes an answer, last.
        (self._idle.appendleft if lane.owed else self._idle.append)(lane)
        self._tokens.put(None)

    def _close_lanes(self) -> None:
        """Closes the lanes as they come back from the runs that go on."""
        for _ in self._lanes:
            self._tokens.get()
            self._idle.pop().close()
        self._over = True
        self._tokens.put(None)  # for whoever still waits

    def _forward(self) -> None:
        """Writes what the worker says to the server's log, until it says no more."""
        stream = self._process.stdout
        assert stream is not None
        extra = {"model": self._task.artifact.name, "pid": self._process.pid}
        with stream:
            while line := stream.readline(_MAX_LINE):
                text = line.decode("utf-8", "replace").rstrip()
                level, _, said = text.partition(":")
                number = logging.getLevelNamesMapping().get(level)
                if number is None:
                    number, said = logging.INFO, text
                if said:
                    _log.log(number, "worker: %s", said, extra=extra)


def _start(task: Task, there: socket.socket, lanes: Sequence[Lane]) -> subprocess.Popen[bytes]:
    own = task.python is None
    environment = dict(os.environ)
    if not own:
        # What was set for the server's interpreter would be looked for in the other one's.
        environment = {k: v for k, v in environment.items() if not k.startswith("PYTHON")}
    command = [
        sys.executable if own else str(task.python),
        "-P" if own else "-I",
        *("-c", _BOOT, str(_PACKAGE), str(there.fileno()), str(os.getpid())),
    ]
    passed = [there.fileno(), *(number for lane in lanes for number in lane.passed)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=passed,
        start_new_session=True,  # Ctrl-C is the server's
    )


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
