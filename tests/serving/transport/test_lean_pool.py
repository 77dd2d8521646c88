"""The pool stays small for quick work and grows for what blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from crossfade.serving.transport.lean_pool import LeanPool


@pytest.fixture
def pool() -> Iterator[LeanPool]:
    made = LeanPool(2, 8, "test")
    yield made
    made.shutdown()


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.005)
    return holds()


def test_results_and_exceptions_come_back(pool: LeanPool) -> None:
    futures = [pool.submit(divmod, n, 3) for n in range(200)]
    assert [f.result(5) for f in futures] == [divmod(n, 3) for n in range(200)]
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(5)
    assert pool.submit(int, "7", base=8).result(5) == 7


def test_blocked_work_does_not_keep_others_waiting(pool: LeanPool) -> None:
    gate = threading.Event()
    blocked = [pool.submit(gate.wait, 10) for _ in range(6)]
    assert pool.submit(lambda: "through").result(2) == "through"
    assert pool.size >= 7
    gate.set()
    assert all(f.result(5) for f in blocked)


def test_it_never_has_more_threads_than_allowed(pool: LeanPool) -> None:
    gate = threading.Event()
    running = threading.Semaphore(0)

    def block() -> bool:
        running.release()
        return gate.wait(10)

    blocked = [pool.submit(block) for _ in range(20)]
    for _ in range(8):
        assert running.acquire(timeout=5)
    assert not running.acquire(timeout=0.1)
    assert pool.size == 8
    gate.set()
    assert all(f.result(5) for f in blocked)


def test_it_shrinks_when_work_is_quick_again(pool: LeanPool) -> None:
    gate = threading.Event()
    blocked = [pool.submit(gate.wait, 10) for _ in range(8)]
    assert until(lambda: pool.size == 8)
    gate.set()
    for future in blocked:
        future.result(5)

    def quick() -> bool:
        for future in [pool.submit(lambda: None) for _ in range(50)]:
            future.result(5)
        return pool.size == 2

    assert until(quick)


def test_a_cancelled_future_is_not_run(pool: LeanPool) -> None:
    gate = threading.Event()
    ran: list[int] = []
    blocked = [pool.submit(gate.wait, 10) for _ in range(8)]
    assert until(lambda: pool.size == 8)
    late = pool.submit(ran.append, 1)
    assert late.cancel()
    gate.set()
    for future in blocked:
        future.result(5)
    pool.submit(lambda: None).result(5)
    assert ran == []


def test_after_the_end_nothing_is_taken() -> None:
    pool = LeanPool(1, 2, "ended")
    assert pool.submit(lambda: 1).result(5) == 1
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(lambda: 1)
    assert until(lambda: pool.size == 0)


def test_it_is_never_without_a_thread() -> None:
    """Threads come and go all the time here, and none that has gone is counted."""
    pool = LeanPool(1, 8, "churn")
    for _ in range(200):
        futures = [pool.submit(time.sleep, 0.003) for _ in range(4)]
        futures += [pool.submit(lambda: None) for _ in range(8)]
        for future in futures:
            future.result(5)
    alive = [thread for thread in threading.enumerate() if thread.name == "churn"]
    assert 1 <= pool.size == len(alive)
    pool.shutdown()
