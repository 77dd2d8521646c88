"""A few threads that run members beside the thread that asked for them."""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Crew:
    """Runs tasks side by side, at least one of them on the calling thread. Thread-safe.

    What finds no free thread is run by the caller: nothing ever waits for a thread, so that
    ensembles of ensembles cannot wait for each other. Threads are made as they are needed.

    Args:
        most: threads at most.
    """

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, "member")
        self._free = threading.Semaphore(most)
        self._cores = len(os.sched_getaffinity(0))
        self._calls = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def counted(self) -> Iterator[bool]:
        """Around a call that brings tasks; says whether others alone keep the cores busy."""
        with self._lock:
            crowded = self._calls >= self._cores - 1 > 0
            self._calls += 1
        try:
            yield crowded
        finally:
            with self._lock:
                self._calls -= 1

    def run(
        self, tasks: Sequence[Callable[[], T]], until_s: float | None = None, *, spread: bool = True
    ) -> list[T | None]:
        """Runs the tasks.

        Args:
            tasks: independent of each other.
            until_s: ``time.monotonic()`` value after which they are not waited for; none of them
                then runs on the calling thread, unless there is no free one.
            spread: over threads; else one after the other, unless ``until_s`` asks for it.

        Returns:
            What each returned; ``None`` for those that had not ended by ``until_s``.

        Raises:
            Exception: what the first of them that failed raised, after all have ended.
        """
        if until_s is None and not (spread and len(tasks) > 1):
            return [task() for task in tasks]
        away = tasks if until_s is not None else tasks[:-1]
        futures: list[Future[T] | None] = [self._start(task) for task in away]
        futures += [None] * (len(tasks) - len(away))
        failure: Exception | None = None
        results: list[T | None] = [None] * len(tasks)
        for number, (task, future) in enumerate(zip(tasks, futures, strict=True)):
            if future is None:
                try:
                    results[number] = task()
                except Exception as error:
                    failure = failure or error
        for number, future in enumerate(futures):
            if future is not None:
                left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
                try:
                    results[number] = future.result(left_s)
                except TimeoutError:
                    continue
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure
        return results

    def close(self) -> None:
        """Lets the threads end once they have done what they do."""
        self._pool.shutdown(wait=False)

    def _start(self, task: Callable[[], T]) -> Future[T] | None:
        """Gives the task to a thread; ``None`` where none is free."""
        if not self._free.acquire(blocking=False):
            return None
        context = contextvars.copy_context()

        def run() -> T:
            try:
                return context.run(task)
            finally:
                self._free.release()

        try:
            return self._pool.submit(run)
        except RuntimeError:  # closed while a last request is answered
            self._free.release()
            return None
