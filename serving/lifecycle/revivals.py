"""Loads evicted versions again, each once however many requests ask for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from crossfade.runtimes.core.errors import DeadlineExceeded


class Revivals:
    """The loads that requests wait for. Thread-safe.

    Args:
        load: loads a model's version; what it raises, everybody who waits gets.
    """

    def __init__(self, load: Callable[[str, int], None]) -> None:
        self._load = load
        self._going_on: dict[tuple[str, int], Future[None]] = {}
        self._lock = threading.Lock()

    def wait_for(self, name: str, version: int, deadline_s: float | None) -> None:
        """Has the version loaded, and waits for it.

        Args:
            name: of the model.
            version: which one of its.
            deadline_s: ``time.monotonic()`` value; the load goes on after it.

        Raises:
            DeadlineExceeded: it was not there in time.
            CrossfadeError: why it could not be loaded.
        """
        with self._lock:
            load = self._going_on.get((name, version))
            if load is None:
                load = self._going_on[name, version] = Future()
                # A thread of its own: the one that waits may give up.
                threading.Thread(
                    target=self._run, args=(name, version, load), name="revival", daemon=True
                ).start()
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        try:
            load.result(None if left_s is None else min(left_s, threading.TIMEOUT_MAX))
        except TimeoutError:
            raise DeadlineExceeded(
                f"the deadline passed while model '{name}' was loaded again"
            ) from None

    def _run(self, name: str, version: int, load: Future[None]) -> None:
        failure: BaseException | None = None
        try:
            self._load(name, version)
        except BaseException as error:
            failure = error
        with self._lock:
            del self._going_on[name, version]
        if failure is None:
            load.set_result(None)
        else:
            load.set_exception(failure)
