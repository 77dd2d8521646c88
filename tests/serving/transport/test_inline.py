"""Quick calls run on the poller; one that blocks is relieved by another, for as long as it does."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from crossfade.serving.transport.inline import Inline


class Network:
    """Events that pollers take one at a time and run inline."""

    def __init__(self, most: int = 4) -> None:
        self.events: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.inline = Inline(self.poll, most)
        threading.Thread(target=self.poll_for_ever, daemon=True).start()

    def poll_for_ever(self) -> None:
        while self.poll():
            pass

    def poll(self) -> bool:
        try:
            event = self.events.get(timeout=0.05)
        except queue.Empty:
            return True
        if event is None:
            self.events.put(None)  # for the other pollers
            return False
        self.inline.run(event)
        return True


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.events.put(None)
    made.inline.close()


def until(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.005)
    return holds()


def test_quick_calls_need_one_thread(network: Network) -> None:
    ran: list[int] = []
    for _ in range(500):
        network.events.put(lambda: ran.append(threading.get_ident()))
    assert until(lambda: len(ran) == 500)
    assert len(set(ran)) == 1
    assert network.inline.pending == 0


def test_a_stuck_poller_is_relieved_and_comes_back(network: Network) -> None:
    gate = threading.Event()
    through = threading.Event()
    network.events.put(lambda: gate.wait(10))
    network.events.put(through.set)
    assert through.wait(5)
    assert network.inline.pending == 1
    gate.set()
    assert until(lambda: network.inline.pollers == 1)  # the one that stood in has gone
    again = threading.Event()
    network.events.put(again.set)
    assert again.wait(5)


def test_those_who_stand_in_are_relieved_too_but_not_without_end(network: Network) -> None:
    gate = threading.Event()
    running = threading.Semaphore(0)

    def block() -> None:
        running.release()
        gate.wait(10)

    for _ in range(20):
        network.events.put(block)
    for _ in range(5):  # the first poller, and four that stand in
        assert running.acquire(timeout=5)
    assert not running.acquire(timeout=0.3)
    gate.set()
    assert until(lambda: network.inline.pending == 0 and network.events.empty())


def test_a_call_that_fails_leaves_the_poller_free() -> None:
    inline = Inline(lambda: False, 1)
    with pytest.raises(ZeroDivisionError):
        inline.run(lambda: 1 // 0)
    assert inline.pending == 0
    inline.close()
