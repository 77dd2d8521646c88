"""The sources are replaced: as a whole or not at all, and never with a gap."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import FailedPrecondition, LoadFailed, NotFound
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.repository.places import Place, PlacedSource
from crossfade.serving.repository.source import LocalSource
from tests.serving.lifecycle.folders import (
    PATIENCE_S,
    Gate,
    Repository,
    answers,
    lines,
    serving,
    wait_until,
)


@pytest.fixture
def old(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "old")
    made.add("m", 1)
    made.add("gone", 1)
    return made


@pytest.fixture
def new(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "new")
    made.add("m", 2)
    made.add("n", 5)
    return made


@pytest.fixture
def manager(old: Repository) -> Iterator[Manager]:
    made = old.manager(Mode.NONE)
    made.start()
    yield made
    made.close()


def test_all_of_it(manager: Manager, new: Repository) -> None:
    manager.replace([LocalSource(new.root)])
    assert serving(manager) == {("m", 2), ("n", 5)}
    assert (answers(manager, "m"), answers(manager, "n")) == (2, 5)
    wait_until(lambda: lines(manager, "gone") == [(1, "END", "unloaded")])


def test_nothing_old_goes_before_all_new_is_there(
    manager: Manager, new: Repository, old: Repository
) -> None:
    gate = Gate(new.root)
    gate.closed = {5}
    replacing = threading.Thread(target=manager.replace, args=([gate],))
    replacing.start()
    gate.wait_asked(5)
    wait_until(lambda: ("m", 2) in serving(manager))
    assert {("m", 1), ("gone", 1)} <= serving(manager)
    gate.open(5)
    replacing.join(PATIENCE_S)
    assert serving(manager) == {("m", 2), ("n", 5)}


@pytest.mark.parametrize("fault", ["broken", "empty", "misconfigured", "label", "missing"])
def test_nothing_of_it(manager: Manager, new: Repository, fault: str) -> None:
    sources: list[Any] = [LocalSource(new.root)]
    expected: type[Exception] = LoadFailed
    if fault == "broken":
        new.broken("x", 1)
    elif fault == "empty":
        (new.root / "x").mkdir()
    elif fault == "misconfigured":
        new.add("x", 1)
        new.configure("x", instances="many")
    elif fault == "label":
        new.add("x", 1)
        new.configure("x", labels={"stable": 7})
        expected = FailedPrecondition
    else:
        sources.append(PlacedSource({"x": Place(str(new.root / "none"))}))
        expected = NotFound
    with pytest.raises(expected):
        manager.replace(sources)
    assert serving(manager) == {("m", 1), ("gone", 1)}
    assert answers(manager, "m") == 1
    assert {line.name for line in manager.index()} == {"m", "gone"}
    assert lines(manager, "m")[0] == (1, "AVAILABLE", "")


def test_again_after_it_was_refused(manager: Manager, new: Repository) -> None:
    new.broken("x", 1)
    for _ in range(2):
        with pytest.raises(LoadFailed, match="model x: version 1"):
            manager.replace([LocalSource(new.root)])
    new.add("x", 2)
    manager.replace([LocalSource(new.root)])  # the broken one is not wanted any more
    assert serving(manager) == {("m", 2), ("n", 5), ("x", 2)}


def test_what_failed_before_is_remembered(old: Repository, new: Repository) -> None:
    old.broken("m", 2)
    old.configure("m", version_policy={"latest": 2})
    manager = old.manager(Mode.NONE)
    manager.start()
    try:
        before = lines(manager, "m")
        assert [state for _, state, _ in before] == ["AVAILABLE", "END"]
        new.broken("x", 1)
        with pytest.raises(LoadFailed):
            manager.replace([LocalSource(new.root)])
        wait_until(lambda: lines(manager, "m")[0] == before[0])
        assert before[1] in lines(manager, "m")
        manager.replace([LocalSource(old.root)])  # the broken one holds nobody back
        assert serving(manager) == {("m", 1), ("gone", 1)}
    finally:
        manager.close()


def test_labels_move_when_all_is_there(manager: Manager, new: Repository) -> None:
    new.add("m", 3)
    new.configure("m", version_policy="all", labels={"stable": 2, "canary": 3})
    manager.replace([LocalSource(new.root)])
    assert (answers(manager, "m", label="stable"), answers(manager, "m", label="canary")) == (2, 3)
    new.configure("m", version_policy="all", labels={"stable": 3, "canary": 9})
    with pytest.raises(FailedPrecondition, match="version 9 of model m"):
        manager.replace([LocalSource(new.root)])
    assert answers(manager, "m", label="stable") == 2


def test_labels_that_wait(manager: Manager, new: Repository) -> None:
    new.configure("m", labels={"stable": 2, "next": 3})
    manager.replace([LocalSource(new.root)], labels_may_wait=True)
    assert answers(manager, "m", label="stable") == 2
    with pytest.raises(NotFound):
        answers(manager, "m", label="next")
    new.configure("m", labels={"stable": 4})
    with pytest.raises(FailedPrecondition, match="version 4 of model m"):
        manager.replace([LocalSource(new.root)], labels_may_wait=True)
    assert answers(manager, "m", label="stable") == 2


def test_a_label_needs_its_version_in_the_new_place(manager: Manager, new: Repository) -> None:
    new.configure("m", labels={"old": 1})  # version 1 is served, but the new folder has none
    with pytest.raises(FailedPrecondition, match="version 1 of model m"):
        manager.replace([LocalSource(new.root)])


def test_polling_follows_the_new_sources(old: Repository, new: Repository) -> None:
    manager = old.manager(Mode.POLL, poll_s=0.02)
    manager.start()
    try:
        for turn in range(10):
            manager.replace([LocalSource((new if turn % 2 == 0 else old).root)])
            time.sleep(0.01)
        manager.replace([LocalSource(new.root)])
        new.add("m", 9)
        wait_until(lambda: serving(manager) == {("m", 9), ("n", 5)})
        old.add("m", 77)
        time.sleep(0.1)
        assert serving(manager) == {("m", 9), ("n", 5)}
    finally:
        manager.close()
