"""Models share a budget: what does not fit is refused, or others make room and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import (
    DeadlineExceeded,
    LoadFailed,
    ResourceExhausted,
    Unavailable,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.lifecycle.manager import Manager, Mode
from tests.serving.lifecycle.folders import (
    Gate,
    Repository,
    answers,
    lines,
    serving,
    wait_until,
)

MB = 1 << 20
Start = Callable[..., Manager]


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@pytest.fixture
def start() -> Iterator[Start]:
    managers: list[Manager] = []

    def begin(manager: Manager) -> Manager:
        managers.append(manager)
        manager.start()
        return manager

    yield begin
    for manager in managers:
        manager.close()


def three(models: Repository, **settings: Any) -> Manager:
    for name in "abc":
        models.add(name, 1, memory_bytes=4 * MB)
    return models.manager(memory_bytes=10 * MB, **settings)


def test_what_does_not_fit_is_refused_with_the_numbers(models: Repository, start: Start) -> None:
    manager = start(three(models))
    manager.load("a")
    manager.load("b")
    with pytest.raises(LoadFailed, match=rf"may take {4 * MB} bytes.*{10 * MB}.*{8 * MB}"):
        manager.load("c")
    assert serving(manager) == {("a", 1), ("b", 1)}
    manager.unload("a")
    wait_until(lambda: manager.memory.used_bytes == 4 * MB)
    manager.load("c")
    assert answers(manager, "c") == 1


def test_the_longest_unused_makes_room_and_comes_back(models: Repository, start: Start) -> None:
    manager = start(three(models, evicts=True))
    manager.load("a")
    manager.load("b")
    for name in "ba":
        assert answers(manager, name) == 1
    manager.load("c")
    assert serving(manager) == {("a", 1), ("c", 1)}
    assert lines(manager, "b") == [(1, "END", "evicted: its memory went to 'c'")]
    assert manager.can_answer(ModelRef("b"))
    assert not manager.is_quick("b")
    assert answers(manager, "b") == 1
    assert ("b", 1) in serving(manager)
    assert manager.memory.used_bytes == 8 * MB
    assert manager.memory.evictions == 2


def test_a_model_in_use_is_not_evicted(models: Repository, start: Start) -> None:
    manager = start(three(models, evicts=True))
    manager.load("a")
    manager.load("b")
    in_use = [manager.lease(ModelRef(name)) for name in "ab"]
    with pytest.raises(LoadFailed, match="memory budget"):
        manager.load("c")
    for lease in in_use:
        lease.__exit__()
    manager.load("c")
    assert ("c", 1) in serving(manager)


def test_one_that_finds_no_room_is_tried_again_with_the_next_request(
    models: Repository, start: Start
) -> None:
    manager = start(three(models, evicts=True))
    for name in "abc":
        manager.load(name)
    assert serving(manager) == {("b", 1), ("c", 1)}
    in_use = [manager.lease(ModelRef(name)) for name in "bc"]
    with pytest.raises(ResourceExhausted) as told:
        manager.lease(ModelRef("a"))
    assert told.value.retry_after_s
    for lease in in_use:
        lease.__exit__()
    assert answers(manager, "a") == 1


def test_one_larger_than_the_budget_evicts_nobody(models: Repository, start: Start) -> None:
    manager = start(three(models, evicts=True))
    models.add("huge", 1, memory_bytes=11 * MB)
    manager.load("a")
    with pytest.raises(LoadFailed, match="memory budget"):
        manager.load("huge")
    assert serving(manager) == {("a", 1)}


def test_many_requests_load_it_once_and_each_keeps_its_deadline(
    models: Repository, start: Start
) -> None:
    for name in "ab":
        models.add(name, 1, memory_bytes=6 * MB)
    gate = Gate(models.root)
    manager = start(Manager([gate], Mode.EXPLICIT, memory_bytes=10 * MB, evicts=True))
    manager.load("a")
    manager.load("b")
    gate.closed.add(1)
    gate.asked.clear()
    with ThreadPoolExecutor(6) as pool:
        patient = [pool.submit(answers, manager, "a") for _ in range(5)]
        late = pool.submit(manager.lease, ModelRef("a"), time.monotonic() + 0.2)
        assert isinstance(late.exception(20), DeadlineExceeded)
        assert not any(one.done() for one in patient)
        gate.open(1)
        assert [one.result(20) for one in patient] == [1] * 5
    assert gate.asked == [1]


def test_unloading_what_was_evicted_means_it(models: Repository, start: Start) -> None:
    manager = start(three(models, evicts=True))
    for name in "abc":
        manager.load(name)
    manager.unload("a")
    assert not manager.can_answer(ModelRef("a"))
    with pytest.raises(Unavailable):
        manager.lease(ModelRef("a"))
    manager.load("a")
    assert answers(manager, "a") == 1


def test_polling_does_not_bring_it_back_by_itself(models: Repository, start: Start) -> None:
    for name in "abc":
        models.add(name, 1, memory_bytes=4 * MB)
    manager = start(
        models.manager(Mode.POLL, poll_s=0.02, memory_bytes=10 * MB, evicts=True, load_threads=1)
    )
    evicted = {"a", "b", "c"} - {name for name, _ in serving(manager)}
    assert len(evicted) == 1
    looked = threading.Event()
    models.add("d", 1, memory_bytes=0)
    wait_until(lambda: ("d", 1) in serving(manager))
    looked.wait(0.1)
    assert not evicted & {name for name, _ in serving(manager)}
    # New files are another version of it, which is wanted at once.
    (name,) = evicted
    models.add(name, 2, memory_bytes=4 * MB)
    wait_until(lambda: (name, 2) in serving(manager))
    assert answers(manager, name) == 2


def test_the_newest_version_answers_even_if_it_was_evicted(
    models: Repository, start: Start
) -> None:
    models.configure("a", version_policy="all")
    models.add("a", 1, memory_bytes=1 * MB)
    models.add("a", 2, memory_bytes=6 * MB)
    models.add("b", 1, memory_bytes=6 * MB)
    manager = start(models.manager(memory_bytes=10 * MB, evicts=True))
    manager.load("a")
    manager.load("b")
    assert serving(manager) == {("a", 1), ("b", 1)}
    assert answers(manager, "a", 1) == 1
    assert answers(manager, "a") == 2


def test_two_that_need_each_others_room_do_not_wait_for_each_other(
    models: Repository, start: Start
) -> None:
    for name in "ab":
        models.add(name, 1, memory_bytes=6 * MB)
    manager = start(models.manager(memory_bytes=10 * MB, evicts=True))
    manager.load("a")
    manager.load("b")

    def ask_often(name: str) -> int:
        good = 0
        for _ in range(40):
            try:
                good += answers(manager, name)
            except ResourceExhausted:
                time.sleep(0.001)
        return good

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask_often, name) for name in "abab"]
        assert all(one.result(60) > 0 for one in asked)
    assert manager.memory.used_bytes <= 10 * MB
