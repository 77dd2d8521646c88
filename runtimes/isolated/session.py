"""A session whose runs go on in a worker process, which is started again when it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from crossfade.runtimes import deadline
from crossfade.runtimes.core.errors import CrossfadeError, Internal, LoadFailed, Unavailable
from crossfade.runtimes.core.model import Signature, Tensors
from crossfade.runtimes.isolated import backoff
from crossfade.runtimes.isolated.facts import Facts
from crossfade.runtimes.isolated.process import Task, WorkerProcess

_log = logging.getLogger(__name__)
_CLOSE_S = 2.0
_FOR_EVER_S = 1e6  # no socket takes longer time-outs
_LOADING_S = 1.0  # the hint while a worker loads: nobody knows how long that takes


class IsolatedSession:
    """See ``Session``; ``close`` ends the worker. Thread-safe.

    Attributes:
        restarts: how often the worker had to be started again.
        instances, max_rows, quantization, nodes: as the worker's session says, see ``Session``;
            no more instances than the worker was given lanes, no ``max_rows`` if it said none.

    Raises:
        LoadFailed, MissingExtra: the first worker could not load the version.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._worker: WorkerProcess | None = None
        self._again_s = 0.0
        self.restarts = 0
        self._closing = threading.Event()
        self._tried = threading.Event()
        self._failure: CrossfadeError | None = None
        self.signatures: Mapping[str, Signature] = {}
        self._facts = Facts()
        # One thread starts every worker and lives as long as they: see ``WorkerProcess``.
        self._keeper = threading.Thread(target=self._keep, name="worker-keeper", daemon=True)
        self._keeper.start()
        self._tried.wait()
        if self._failure is not None:
            raise self._failure
        lanes, told = task.artifact.instances, self._facts
        self.instances = lanes if told.instances is None else min(lanes, told.instances)
        self.quantization = told.quantization
        self.nodes = told.nodes
        if told.max_rows is not None:
            self.max_rows = told.max_rows

    @property
    def up(self) -> bool:
        """Whether the worker can answer now."""
        return self._worker is not None

    @property
    def pid(self) -> int | None:
        """The worker's process id, while it is up."""
        worker = self._worker
        return worker.pid if worker else None

    def resident_bytes(self) -> int:
        """Memory of the worker that is in RAM."""
        worker = self._worker
        return worker.resident_bytes() if worker else 0

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``; stops waiting when ``deadline.of_run`` passes.

        Raises:
            Unavailable: the worker ended, or is not there again yet.
            DeadlineExceeded: the caller's time is up.
        """
        worker = self._worker
        if worker is None:
            left_s = self._again_s - time.monotonic()
            raise Unavailable(
                "the model's worker process is being started again",
                retry_after_s=left_s + _LOADING_S if left_s > 0 else _LOADING_S,
            )
        until_s = deadline.of_run.get()
        if until_s is not None and until_s - time.monotonic() > _FOR_EVER_S:
            until_s = None
        return worker.run(inputs, signature, outputs, until_s)

    def close(self) -> None:
        """See ``Session.close``."""
        self._closing.set()
        if worker := self._worker:
            worker.ask_end()
        self._keeper.join(_CLOSE_S)
        if worker and self._keeper.is_alive():
            worker.kill()
            self._keeper.join(_CLOSE_S)

    def _keep(self) -> None:
        failures = 0
        extra = {"model": self._task.artifact.name, "version": self._task.artifact.version}
        while not self._closing.is_set():
            lived_s = 0.0
            try:
                worker = self._start()
            except CrossfadeError as error:
                if not self._tried.is_set():
                    self._failure = error
                    self._tried.set()
                    return
                said = error.message
            else:
                began_s = time.monotonic()
                _log.info("worker process is up", extra={**extra, "pid": worker.pid})
                self._worker = worker
                self._tried.set()
                if self._closing.is_set():
                    worker.ask_end()
                said = f"it {worker.wait()}"
                self._worker = None
                worker.end()
                lived_s = time.monotonic() - began_s
                if self._closing.is_set():
                    return
            failures = backoff.next_failures(failures, lived_s)
            pause_s = backoff.pause_s(failures)
            self._again_s = time.monotonic() + pause_s
            self.restarts += 1
            _log.error(
                "worker process is started again",
                extra={**extra, "reason": said, "pause_s": pause_s, "restarts": self.restarts},
            )
            self._closing.wait(pause_s)

    def _start(self) -> WorkerProcess:
        try:
            worker = WorkerProcess(self._task)
        except CrossfadeError:
            raise
        except Exception as error:
            raise Internal.hide(error, _log, "starting a worker process") from error
        now = (worker.signatures, worker.facts.quantization)
        if self.signatures and now != (self.signatures, self._facts.quantization):
            worker.kill()
            worker.end()
            raise LoadFailed("the model's files changed: its signatures are others; reload it")
        self.signatures, self._facts = worker.signatures, worker.facts
        return worker
