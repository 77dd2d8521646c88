"""Runs quick calls on the thread that polls the network, and relieves that thread if one is not.

A hand-over to another thread costs more than a small model does: two switches, each with a wait
for the interpreter's lock. So a call that will be over in a fraction of a millisecond is best run
where it was received. Should it block all the same, nobody would receive anything: after
``STUCK_S`` a second thread takes over the polling, until the first one is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

# A poller that has been in one call for longer than this is relieved.
STUCK_S: Final = 0.05


class Inline:
    """Keeps the time of the calls that pollers run themselves. Thread-safe.

    Args:
        poll: polls the network once and handles what came; False when it is shut down.
        most: pollers that may be relieved at the same time.
    """

    def __init__(self, poll: Callable[[], bool], most: int) -> None:
        self._poll = poll
        self._most = most
        self._began_s: dict[int, float] = {}  # poller: when its call began; 0 between two calls
        self._runs = 0
        self._watched = False
        self._work = threading.Semaphore(0)
        self._closed = False
        threading.Thread(target=self._watch, name="grpc-relief", daemon=True).start()

    @property
    def pending(self) -> int:
        """Calls that are being run now."""
        return sum(1 for at in list(self._began_s.values()) if at)

    @property
    def pollers(self) -> int:
        """Threads that have polled and run a call, and have not gone."""
        return len(self._began_s)

    def run(self, work: Callable[[], object]) -> None:
        """Runs ``work`` on this thread, which is a poller."""
        me = threading.get_ident()
        self._runs += 1
        self._began_s[me] = time.monotonic()
        if not self._watched:
            self._watched = True
            self._work.release()
        try:
            work()
        finally:
            self._began_s[me] = 0.0

    def close(self) -> None:
        """Ends the threads of its own."""
        self._closed = True
        self._work.release()

    def _watch(self) -> None:
        while not self._closed:
            self._work.acquire()
            self._look_after()
            self._watched = False
            if self.pending:  # began between the two lines above
                self._watched = True
                self._work.release()

    def _look_after(self) -> None:
        """Relieves pollers that are stuck, for as long as any of them runs calls."""
        while not self._closed:
            runs = self._runs
            time.sleep(STUCK_S)
            if self._runs != runs:
                continue
            if not self.pending:
                return
            if self._all_stuck() and self.pollers <= self._most:
                self._relieve()

    def _all_stuck(self) -> bool:
        now_s = time.monotonic()
        return all(at and now_s - at > STUCK_S for at in list(self._began_s.values()))

    def _relieve(self) -> None:
        there = threading.Event()

        def stand_in() -> None:
            me = threading.get_ident()
            self._began_s[me] = 0.0
            there.set()
            try:
                while self._poll() and self._is_needed(me):
                    pass
            finally:
                del self._began_s[me]

        threading.Thread(target=stand_in, name="grpc-poll", daemon=True).start()
        there.wait()

    def _is_needed(self, me: int) -> bool:
        return all(at for poller, at in list(self._began_s.items()) if poller != me)
