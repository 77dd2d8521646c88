"""A thread pool that keeps few threads at work, and more only while those are blocked.

Python runs one thread at a time: of thirty threads with something to do, most only take turns,
and each turn is a switch. A call that is answered in a fraction of a millisecond is best run by
whichever of two or three threads is free next. But one that waits, for a slow model or in a queue,
must not keep others waiting: while nothing is taken from the queue for ``STUCK_S``, a thread is
added.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

# Work that lasts longer than this is taken to be blocked, and is worth another thread.
STUCK_S: Final = 0.002
_Work = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class LeanPool(Executor):
    """An executor of ``lean`` threads that grows up to ``most`` while they are blocked.

    Thread-safe. Threads are daemons: one that is stuck does not keep the process.
    """

    def __init__(self, lean: int, most: int, name: str) -> None:
        self._lean = lean
        self._most = max(lean, most)
        self._name = name
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._began_s: dict[int, float] = {}  # thread: when its work began; 0 while it has none
        self._taken = 0
        self._backlog = threading.Semaphore(0)
        self._watched = False
        self._closed = False
        for _ in range(lean):
            self._add()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    @property
    def size(self) -> int:
        """Threads there are now."""
        return len(self._began_s)

    @property
    def pending(self) -> int:
        """Work that waits or is being done."""
        return self._queue.qsize() + sum(1 for at in list(self._began_s.values()) if at)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See ``Executor.submit``."""
        if self._closed:
            raise RuntimeError("the pool is shut down")
        future: Future[Any] = Future()
        self._queue.put((future, fn, args, kwargs))
        if not self._watched and not self._queue.empty():
            self._watched = True
            self._backlog.release()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See ``Executor.shutdown``; does not wait for work that is blocked."""
        self._closed = True
        for _ in range(self._most):
            self._queue.put(None)
        self._backlog.release()

    def _add(self) -> None:
        there = threading.Event()
        threading.Thread(target=self._work, args=(there,), name=self._name, daemon=True).start()
        there.wait()

    def _work(self, there: threading.Event) -> None:
        me = threading.get_ident()
        with self._lock:  # by the thread itself, which may be gone before its maker goes on
            self._began_s[me] = 0.0
        there.set()
        while (work := self._queue.get()) is not None:
            self._taken += 1
            future, fn, args, kwargs = work
            began_s = self._began_s[me] = time.monotonic()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)
            del work, future, fn, args, kwargs  # a message may be large
            self._began_s[me] = 0.0
            if len(self._began_s) > self._lean and self._is_surplus(me, began_s):
                return
        with self._lock:
            self._began_s.pop(me, None)

    def _is_surplus(self, me: int, began_s: float) -> bool:
        """Whether this thread, done with quick work, is one more than are needed; if so it goes."""
        now_s = time.monotonic()
        if now_s - began_s > STUCK_S:
            return False
        with self._lock:
            blocked = sum(1 for at in self._began_s.values() if at and now_s - at > STUCK_S)
            if len(self._began_s) - blocked <= self._lean:
                return False
            del self._began_s[me]
            return True

    def _watch(self) -> None:
        """Adds a thread whenever there is work and none of it is taken."""
        while not self._closed:
            self._backlog.acquire()
            while not self._queue.empty() and not self._closed:
                taken = self._taken
                time.sleep(STUCK_S)
                idle = sum(1 for at in list(self._began_s.values()) if not at)  # may be waking up
                stuck = self._taken == taken and self._queue.qsize() > idle
                if stuck and self.size < self._most:
                    self._add()
            self._watched = False
            if not self._queue.empty():  # came between the two lines above
                self._watched = True
                self._backlog.release()
