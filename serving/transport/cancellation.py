"""How a host tells the data plane that a caller has gone."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class CancelToken:
    """A ``Cancellation`` that its owner sets. Thread-safe, and without a lock.

    ``set`` raises the flag and then empties the list of callbacks; ``subscribe`` adds to the list
    and then looks at the flag. Whichever comes second runs the callback, and ``list.pop`` hands
    each one to a single thread.
    """

    __slots__ = ("_callbacks", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._callbacks: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """True once the caller has cancelled or disconnected."""
        return self._is_set

    def set(self) -> None:
        """Runs all callbacks, on this thread; further calls do nothing."""
        self._is_set = True
        self._run_callbacks()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once, from any thread, when it is set (at once if it is)."""
        self._callbacks.append(callback)
        if self._is_set:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        while True:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            try:
                callback()
            except Exception:
                _log.exception("a callback of a cancelled call failed")
