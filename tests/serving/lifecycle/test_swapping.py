"""While versions come and go: nobody is refused, nobody is answered by a closed model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.lifecycle.manager import Manager, Mode
from tests.serving.lifecycle.folders import (
    PATIENCE_S,
    Gate,
    Repository,
    answers,
    ask,
    lines,
    serving,
    wait_until,
)


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


class Clients:
    """Threads that ask without a pause, and note every answer and every failure."""

    def __init__(self, manager: Manager, refs: list[ModelRef]) -> None:
        self._manager = manager
        self._stop = threading.Event()
        self.seen: dict[ModelRef, list[int]] = {ref: [] for ref in refs}
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(ref,), daemon=True) for ref in refs * 2
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _ask(self, ref: ModelRef) -> None:
        last = 0
        while not self._stop.is_set() and not self.failures:
            try:
                with self._manager.lease(ref) as model:
                    last = ask(model)
                self.seen[ref].append(last)
            except BaseException as failure:
                self.failures.append(failure)

    def wait_answered(self, ref: ModelRef, version: int) -> None:
        wait_until(lambda: bool(self.failures) or version in self.seen[ref][-20:])


def test_no_request_is_lost_while_versions_follow_each_other(models: Repository) -> None:
    models.add("m", 1)
    manager = models.manager()
    manager.start()
    manager.load("m")
    ref = ModelRef("m")
    with Clients(manager, [ref]) as clients:
        for version in range(2, 14):
            models.add("m", version)
            manager.load("m")
            models.remove(f"m/{version - 1}")
            clients.wait_answered(ref, version)
    manager.close()
    assert clients.failures == []
    assert set(clients.seen[ref]) == set(range(1, 14))


def test_no_request_is_lost_while_files_are_polled(models: Repository) -> None:
    """Rollbacks, reloads of the same version and broken files among them."""
    models.add("m", 1)
    manager = models.manager(Mode.POLL, poll_s=0.005)
    manager.start()
    ref = ModelRef("m")
    with Clients(manager, [ref]) as clients:
        for turn in range(5):
            models.add("m", 2, memory_bytes=turn)
            clients.wait_answered(ref, 2)
            models.broken("m", 3)
            wait_until(lambda: any(line[0] == 3 for line in lines(manager, "m")))
            models.add("m", 1, memory_bytes=turn)
            models.remove("m/3")
            models.remove("m/2")
            clients.wait_answered(ref, 1)
    manager.close()
    assert clients.failures == []
    assert set(clients.seen[ref]) == {1, 2}


def test_no_request_for_a_label_is_lost_when_it_moves(models: Repository) -> None:
    """A configuration that changes reloads all versions; the label waits for its new one."""
    for version in (1, 2, 3):
        models.add("m", version)
    models.configure("m", labels={"stable": 1, "canary": 3})
    source = Gate(models.root)
    manager = Manager([source], Mode.EXPLICIT)
    manager.start()
    manager.load("m")
    stable, canary = ModelRef("m", label="stable"), ModelRef("m", label="canary")
    with Clients(manager, [stable, canary]) as clients:
        for here, there in ((2, 1), (1, 2), (2, 1), (1, 2)):
            models.configure("m", labels={"stable": here, "canary": 3}, instances=here)
            source.closed = {here}
            loading = threading.Thread(target=manager.load, args=("m",), daemon=True)
            source.asked.clear()
            loading.start()
            source.wait_asked(here)  # 3 has been loaded again by now
            assert answers(manager, "m", label="stable") == there
            clients.wait_answered(stable, there)
            source.open(here)
            loading.join(PATIENCE_S)
            assert answers(manager, "m", label="stable") == here
            clients.wait_answered(stable, here)
    manager.close()
    assert clients.failures == []
    assert set(clients.seen[stable]) == {1, 2}
    assert set(clients.seen[canary]) == {3}


def test_the_old_version_serves_until_the_new_one_does(models: Repository) -> None:
    models.add("m", 1)
    source = Gate(models.root)
    manager = Manager([source], Mode.EXPLICIT)
    manager.start()
    manager.load("m")
    models.add("m", 2)
    source.closed = {2}
    loading = threading.Thread(target=manager.load, args=("m",), daemon=True)
    loading.start()
    source.wait_asked(2)
    assert answers(manager, "m") == 1
    assert lines(manager, "m") == [(1, "AVAILABLE", ""), (2, "LOADING", "")]
    source.open(2)
    loading.join(PATIENCE_S)
    assert answers(manager, "m") == 2
    wait_until(lambda: serving(manager) == {("m", 2)})
    manager.close()


def test_other_models_serve_and_load_while_one_is_slow(models: Repository) -> None:
    models.add("slow", 7)
    models.add("quick", 1)
    source = Gate(models.root)
    manager = Manager([source], Mode.EXPLICIT)
    manager.start()
    source.closed = {7}
    loading = threading.Thread(target=manager.load, args=("slow",), daemon=True)
    loading.start()
    source.wait_asked(7)
    manager.load("quick")
    assert answers(manager, "quick") == 1
    assert [line.name for line in manager.index()] == ["quick", "slow"]
    source.open(7)
    loading.join(PATIENCE_S)
    assert answers(manager, "slow") == 7
    manager.close()


def test_loads_and_unloads_of_one_model_from_many_threads(models: Repository) -> None:
    """They take turns: in the end the model is there or not, and nothing is left half done."""
    models.add("m", 1)
    manager = models.manager()
    manager.start()
    failures: list[BaseException] = []

    def repeat(change: Callable[[str], None]) -> None:
        for _ in range(30):
            try:
                change("m")
            except BaseException as failure:
                failures.append(failure)

    threads = [
        threading.Thread(target=repeat, args=(change,), daemon=True)
        for change in (manager.load, manager.unload, manager.load)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert failures == []
    manager.load("m")
    assert answers(manager, "m") == 1
    assert len(manager.served()) == 1
    manager.close()
    assert manager.served() == []


def test_bad_requests_stay_bad_while_versions_change(models: Repository) -> None:
    models.add("m", 1)
    manager = models.manager()
    manager.start()
    manager.load("m")
    for version in (2, 3, 4):
        models.add("m", version)
        manager.load("m")
        with pytest.raises(InvalidArgument):
            manager.lease(ModelRef("m\n"))
        with pytest.raises(CrossfadeError, match="version 99 is not found"):
            manager.lease(ModelRef("m", 99))
    manager.close()
