"""What is served follows what the repository holds, in each of the three modes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import (
    Code,
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
    LoadFailed,
    NotFound,
    Unavailable,
)
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.config.model_config import ModelConfig, VersionPolicy
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.lifecycle.policies import State
from crossfade.serving.repository.layout import ModelFiles
from crossfade.serving.repository.source import LocalSource, open_source
from tests.serving.lifecycle.folders import Repository, answers, ask, lines, serving, wait_until


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


@contextmanager
def running(manager: Manager) -> Iterator[Manager]:
    manager.start()
    try:
        yield manager
    finally:
        manager.close()


def refused(manager: Manager, *ref: Any) -> CrossfadeError:
    with pytest.raises(CrossfadeError) as caught, manager.lease(ModelRef(*ref)):
        pass
    return caught.value


# -- none ---------------------------------------------------------------------------------------


def test_mode_none_loads_everything_at_the_start_and_nothing_after(models: Repository) -> None:
    models.add("a", 1)
    models.add("a", 3)
    models.add("b", 2)
    manager = models.manager(Mode.NONE)
    early = manager.started
    with running(manager):
        assert (early, manager.started) == (False, True)
        assert serving(manager) == {("a", 3), ("b", 2)}
        assert (answers(manager, "a"), answers(manager, "b")) == (3, 2)
        models.add("a", 4)
        models.remove("b")
        assert (answers(manager, "a"), answers(manager, "b")) == (3, 2)
        for change in (manager.load, manager.unload):
            with pytest.raises(FailedPrecondition, match="--model-control-mode explicit"):
                change("a")
    assert manager.served() == []


def test_one_model_that_fails_is_no_reason_for_the_others(models: Repository) -> None:
    models.broken("a", 1)
    models.add("b", 1)
    models.configure("c", platfrom="x")
    models.add("c", 1)
    with running(models.manager(Mode.NONE)) as manager:
        assert manager.started
        assert serving(manager) == {("b", 1)}
        assert lines(manager, "a") == [(1, "END", "fake.yaml is not YAML")]
        ((_, state, reason),) = lines(manager, "c")
        assert state is None
        assert "did you mean 'platform'?" in reason
        assert refused(manager, "a").code is Code.UNAVAILABLE
        assert refused(manager, "c").code is Code.UNAVAILABLE


class Flaky(LocalSource):
    """A repository in which reading some models fails as disks and networks do."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.failing: set[str] = set()
        self.names_fail = False

    def names(self) -> list[str]:
        if self.names_fail:
            raise ConnectionError("the bucket does not answer")
        return super().names()

    def read(self, name: str, override: ModelConfig | None = None) -> ModelFiles:
        if name in self.failing:
            raise PermissionError("secret/path")
        return super().read(name, override)


@pytest.mark.parametrize("mode", [Mode.NONE, Mode.POLL])
def test_a_model_that_cannot_be_read_is_no_reason_for_the_others(
    models: Repository, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        models.add(name, 1)
    source = Flaky(models.root)
    source.failing = {"b"}
    with running(Manager([source], mode, poll_s=0.01)) as manager:
        assert manager.started
        assert serving(manager) == {("a", 1), ("c", 1)}
        assert "secret/path" in caplog.text
        if mode is Mode.POLL:
            models.add("c", 2)
            wait_until(lambda: ("c", 2) in serving(manager))
            source.failing.clear()
            wait_until(lambda: ("b", 1) in serving(manager))


def test_every_reason_is_in_the_log(models: Repository, caplog: pytest.LogCaptureFixture) -> None:
    models.broken("broken", 1)
    models.configure("mistaken", platfrom="x")
    models.write("empty/notes.md", "no version")
    with running(models.manager(Mode.NONE)):
        found = {
            vars(record).get("model"): vars(record).get("reason")
            for record in caplog.records
            if record.levelno >= logging.ERROR
        }
    assert found["broken"] == "fake.yaml is not YAML"
    assert "did you mean 'platform'?" in str(found["mistaken"])
    assert found["empty"] == "there is no version to serve"


# -- names, versions, labels --------------------------------------------------------------------


def test_who_answers(models: Repository) -> None:
    for version in (1, 2, 3):
        models.add("m", version)
    models.configure("m", version_policy="all", labels={"stable": 1, "canary": 3})
    with running(models.manager(Mode.NONE)) as manager:
        assert answers(manager, "m") == 3
        assert [answers(manager, "m", version=v) for v in (1, 2, 3)] == [1, 2, 3]
        assert answers(manager, "m", label="stable") == 1
        assert answers(manager, "m", label="canary") == 3


def test_who_does_not_answer(models: Repository) -> None:
    models.add("m", 1)
    models.add("m", 2)
    models.broken("m", 3)
    models.configure("m", version_policy={"specific": [2, 3]}, labels={"next": 3, "later": 4})
    with running(models.manager(Mode.NONE)) as manager:
        found = {
            "unknown model": refused(manager, "nobody"),
            "no name": refused(manager, ""),
            "NUL": refused(manager, "m\0"),
            "not chosen": refused(manager, "m", 1),
            "failed": refused(manager, "m", 3),
            "not there": refused(manager, "m", 9),
            "unknown label": refused(manager, "m", None, "sta\nble"),
            "label of a failed version": refused(manager, "m", None, "next"),
            "label of no version": refused(manager, "m", None, "later"),
        }
        assert answers(manager, "m") == 2
    assert {name: error.code.name for name, error in found.items()} == {
        "unknown model": "NOT_FOUND",
        "no name": "INVALID_ARGUMENT",
        "NUL": "INVALID_ARGUMENT",
        "not chosen": "NOT_FOUND",
        "failed": "UNAVAILABLE",
        "not there": "NOT_FOUND",
        "unknown label": "NOT_FOUND",
        "label of a failed version": "UNAVAILABLE",
        "label of no version": "NOT_FOUND",
    }
    assert found["unknown model"].message == "Request for unknown model: 'nobody' is not found"
    assert found["not there"].message == "Request for unknown model: 'm' version 9 is not found"
    assert found["failed"].message == (
        "Request for unknown model: 'm' version 3 is not at ready state"
    )
    assert found["unknown label"].message == r"model 'm' has no version label 'sta\nble'"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest", {5}),
        ({"latest": 2}, {5, 4}),
        ("all", {1, 4, 5}),
        ({"specific": [1, 2, 4]}, {1, 4}),
    ],
)
def test_version_policies(models: Repository, policy: Any, expected: set[int]) -> None:
    for version in (1, 4, 5):
        models.add("m", version)
    models.configure("m", version_policy=policy)
    with running(models.manager(Mode.NONE)) as manager:
        assert serving(manager) == {("m", version) for version in expected}
        assert answers(manager, "m") == max(expected)


def test_of_two_models_with_one_name_the_first_repositorys_is_served(tmp_path: Path) -> None:
    first, second = Repository(tmp_path / "first"), Repository(tmp_path / "second")
    first.add("m", 1)
    second.add("m", 2)
    second.add("n", 3)
    sources = [open_source(str(first.root)), open_source(str(second.root))]
    with running(Manager(sources, Mode.NONE)) as manager:
        assert serving(manager) == {("m", 1), ("n", 3)}


# -- explicit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("startup", "expected"),
    [((), set()), (("a",), {("a", 1)}), (("*",), {("a", 1), ("b", 1)}), (("zz", "b"), {("b", 1)})],
)
def test_explicit_mode_starts_with_what_it_is_told(
    models: Repository, startup: tuple[str, ...], expected: set[tuple[str, int]]
) -> None:
    models.add("a", 1)
    models.add("b", 1)
    with running(models.manager(Mode.EXPLICIT, startup=startup)) as manager:
        assert manager.started
        assert serving(manager) == expected


def test_a_configuration_of_the_caller_lasts_until_the_next_load(models: Repository) -> None:
    models.add("m", 1)
    models.add("m", 2)
    models.configure("m", max_batch_size=4)
    with running(models.manager()) as manager:
        manager.load("m", ModelConfig(max_batch_size=2, version_policy=VersionPolicy(all=True)))
        assert serving(manager) == {("m", 1), ("m", 2)}
        assert {s.metadata.max_batch_size for s in manager.served()} == {2}
        manager.load("m")
        assert serving(manager) == {("m", 2)}
        assert {s.metadata.max_batch_size for s in manager.served()} == {4}
        with pytest.raises(LoadFailed, match="has no 'nothing'"):
            manager.load("m", ModelConfig(default_filename="nothing"))


def test_load_and_unload(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        assert lines(manager, "m") == [(None, None, "")]
        assert isinstance(refused(manager, "m"), NotFound)
        manager.load("m")
        assert answers(manager, "m") == 1
        assert lines(manager, "m") == [(1, "AVAILABLE", "")]
        manager.unload("m")
        assert isinstance(refused(manager, "m"), Unavailable)
        assert isinstance(refused(manager, "m", 1), Unavailable)
        wait_until(lambda: lines(manager, "m") == [(1, "END", "unloaded")])
        manager.load("m")
        assert answers(manager, "m") == 1
        assert lines(manager, "m") == [(1, "AVAILABLE", "")]


def test_unload_and_load_again_and_again_without_waiting(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        for _ in range(20):
            manager.load("m")
            assert answers(manager, "m") == 1
            manager.unload("m")
        manager.load("m")
        assert serving(manager) == {("m", 1)}
        wait_until(lambda: lines(manager, "m") == [(1, "AVAILABLE", "")])


def test_loading_what_is_loaded_changes_nothing(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        manager.load("m")
        (before,) = manager.served()
        manager.load("m")
        assert manager.served() == [before]


def test_a_changed_file_is_a_reload(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        manager.load("m")
        (before,) = manager.served()
        models.add("m", 1, memory_bytes=2048)
        manager.load("m")
        (after,) = manager.served()
        assert after is not before
        assert before.wait_closed(10)
        wait_until(lambda: lines(manager, "m") == [(1, "AVAILABLE", "")])


def test_unloading_what_nobody_knows_is_no_error(models: Repository) -> None:
    with running(models.manager()) as manager:
        manager.unload("nobody")
        assert manager.index() == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "a\0b", "..%2f"])
def test_names_that_no_model_may_have(models: Repository, name: str) -> None:
    with running(models.manager()) as manager:
        for change in (manager.load, manager.unload):
            with pytest.raises(InvalidArgument):
                change(name)
        assert manager.index() == []


def test_loading_what_is_not_there(models: Repository) -> None:
    with running(models.manager()) as manager:
        with pytest.raises(NotFound) as caught:
            manager.load("nobody")
        assert "failed to load 'nobody', failed to poll from model repository" in str(caught.value)
        models.write("empty/notes.md", "")
        with pytest.raises(LoadFailed) as failed:
            manager.load("empty")
        assert str(failed.value) == "failed to load 'empty', there is no version to serve"
        assert lines(manager, "empty") == [(None, None, "there is no version to serve")]


def test_a_failed_load_leaves_the_old_version_and_the_reason(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        manager.load("m")
        models.broken("m", 2)
        with pytest.raises(LoadFailed) as caught:
            manager.load("m")
        assert str(caught.value) == "failed to load 'm', version 2: fake.yaml is not YAML"
        assert answers(manager, "m") == 1
        assert lines(manager, "m") == [
            (1, "AVAILABLE", ""),
            (2, "END", "fake.yaml is not YAML"),
        ]
        models.add("m", 2)
        manager.load("m")
        assert answers(manager, "m") == 2
        wait_until(lambda: serving(manager) == {("m", 2)})


def test_a_failed_reload_of_the_same_version_leaves_the_old_files_serving(
    models: Repository,
) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        manager.load("m")
        models.broken("m", 1)
        with pytest.raises(LoadFailed):
            manager.load("m")
        assert answers(manager, "m") == 1
        why = "new files refused: fake.yaml is not YAML; the one before serves"
        assert lines(manager, "m") == [(1, "AVAILABLE", why)]
        models.add("m", 1, memory_bytes=2048)
        manager.load("m")
        wait_until(lambda: lines(manager, "m") == [(1, "AVAILABLE", "")])


def test_the_reason_is_that_of_the_newest_refusal(models: Repository) -> None:
    models.add("m", 1)
    models.broken("n", 1)
    with running(models.manager(Mode.POLL, poll_s=0.01)) as manager:
        assert lines(manager, "n") == [(1, "END", "fake.yaml is not YAML")]
        for name in "mn":
            models.configure(name, platfrom="x")
        why = "key 'platfrom' is unknown; did you mean 'platform'?"
        wait_until(lambda: lines(manager, "n") == [(1, "END", f"model.yaml: {why}")])
        served = f"model.yaml refused: {why}; the one before serves"
        wait_until(lambda: lines(manager, "m") == [(1, "AVAILABLE", served)])
        for name in "mn":
            models.remove(f"{name}/model.yaml")
        wait_until(lambda: lines(manager, "m") == [(1, "AVAILABLE", "")])
        wait_until(lambda: lines(manager, "n") == [(1, "END", "fake.yaml is not YAML")])


def test_a_failed_version_is_tried_again_when_it_is_asked_for(
    models: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are the same; what failed may have been the machine."""
    from crossfade.runtimes.fake import FakeRuntime

    attempts = []
    original = FakeRuntime.load

    def load(runtime: FakeRuntime, artifact: Any) -> Any:
        attempts.append(artifact.version)
        if len(attempts) < 3:
            raise LoadFailed("no memory")
        return original(runtime, artifact)

    monkeypatch.setattr(FakeRuntime, "load", load)
    models.add("m", 1)
    with running(models.manager()) as manager:
        for _ in range(2):
            with pytest.raises(LoadFailed, match="no memory"):
                manager.load("m")
        manager.load("m")
        assert answers(manager, "m") == 1
    assert attempts == [1, 1, 1]


def test_a_broken_configuration_keeps_what_is_served(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        manager.load("m")
        models.configure("m", instanses=2)
        models.add("m", 2)
        with pytest.raises(LoadFailed, match="did you mean 'instances'") as caught:
            manager.load("m")
        assert str(caught.value).startswith("failed to load 'm', model.yaml: ")
        assert answers(manager, "m") == 1
        models.configure("m", instances=2)
        manager.load("m")
        assert answers(manager, "m") == 2


def test_a_lease_keeps_an_unloaded_version_alive(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager()) as manager:
        manager.load("m")
        served = manager.lease(ModelRef("m"))
        other = manager.lease(ModelRef("m"))
        with served as model:
            manager.unload("m")
            assert isinstance(refused(manager, "m"), Unavailable)
            assert lines(manager, "m") == [(1, "UNLOADING", "")]
            with other:
                assert ask(model) == 1
            assert not served.wait_closed(0.02)
            manager.load("m")  # the same files again, while the old ones drain
            assert answers(manager, "m") == 1
            assert ask(model) == 1
        assert served.wait_closed(10)
        wait_until(lambda: lines(manager, "m") == [(1, "AVAILABLE", "")])


def test_closing_waits_for_those_who_hold_a_lease(models: Repository) -> None:
    models.add("m", 1)
    manager = models.manager(Mode.NONE)
    manager.start()
    with manager.lease(ModelRef("m")) as model:
        (served,) = manager.served()
        assert ask(model) == 1
    manager.close()
    assert served.wait_closed(0)
    assert isinstance(refused(manager, "m"), Unavailable)
    manager.close()


# -- poll ---------------------------------------------------------------------------------------


@pytest.fixture
def polled(models: Repository) -> Iterator[Callable[[], Manager]]:
    started: list[Manager] = []

    def start() -> Manager:
        manager = models.manager(Mode.POLL, poll_s=0.01)
        manager.start()
        started.append(manager)
        return manager

    yield start
    for manager in started:
        manager.close()


def test_polling_follows_the_repository(models: Repository, polled: Callable[[], Manager]) -> None:
    models.add("a", 1)
    manager = polled()
    assert serving(manager) == {("a", 1)}
    models.add("b", 1)
    wait_until(lambda: serving(manager) == {("a", 1), ("b", 1)})
    models.add("a", 2)
    wait_until(lambda: serving(manager) == {("a", 2), ("b", 1)})
    models.remove("a/2")
    wait_until(lambda: serving(manager) == {("a", 1), ("b", 1)})
    models.configure("a", version_policy="all")
    models.add("a", 5)
    wait_until(lambda: serving(manager) == {("a", 1), ("a", 5), ("b", 1)})
    models.remove("b")
    wait_until(lambda: serving(manager) == {("a", 1), ("a", 5)})
    wait_until(lambda: lines(manager, "b") == [(1, "END", "unloaded")])
    models.add("b", 1)
    wait_until(lambda: ("b", 1) in serving(manager))


def test_polling_neither_loads_nor_unloads_on_request(
    models: Repository, polled: Callable[[], Manager]
) -> None:
    models.add("a", 1)
    manager = polled()
    for change in (manager.load, manager.unload):
        with pytest.raises(FailedPrecondition):
            change("a")


def test_a_version_that_failed_is_tried_again_only_with_other_files(
    models: Repository, polled: Callable[[], Manager], caplog: pytest.LogCaptureFixture
) -> None:
    models.add("a", 1)
    models.add("other", 1)
    manager = polled()
    models.broken("a", 2)
    wait_until(lambda: (2, "END", "fake.yaml is not YAML") in lines(manager, "a"))
    for version in range(2, 5):  # the poll goes round some times
        models.add("other", version)
        wait_until(lambda v=version: ("other", v) in serving(manager))  # type: ignore[misc]
    failures = [r for r in caplog.records if r.getMessage() == "load failed"]
    assert len(failures) == 1
    assert answers(manager, "a") == 1
    models.add("a", 2)
    wait_until(lambda: serving(manager) >= {("a", 2)})
    assert answers(manager, "a") == 2


def test_a_broken_configuration_is_logged_once_and_keeps_what_is_served(
    models: Repository, polled: Callable[[], Manager], caplog: pytest.LogCaptureFixture
) -> None:
    models.add("a", 1)
    models.add("other", 1)
    manager = polled()
    models.configure("a", platfrom="x")
    wait_until(lambda: "did you mean 'platform'?" in str([vars(r) for r in caplog.records]))
    for version in range(2, 5):
        models.add("other", version)
        wait_until(lambda v=version: ("other", v) in serving(manager))  # type: ignore[misc]
    told = [r for r in caplog.records if "platform" in str(vars(r).get("reason"))]
    assert len(told) == 1
    assert answers(manager, "a") == 1
    models.remove("a/model.yaml")
    models.add("a", 2)
    wait_until(lambda: answers(manager, "a") == 2)


def test_a_repository_that_cannot_be_read_keeps_what_is_served(
    models: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    models.add("a", 1)
    source = Flaky(models.root)
    with running(Manager([source], Mode.POLL, poll_s=0.01)) as manager:
        source.names_fail = True
        wait_until(lambda: "the bucket does not answer" in caplog.text)
        assert answers(manager, "a") == 1
        models.add("a", 2)
        source.names_fail = False
        wait_until(lambda: serving(manager) == {("a", 2)})


def test_a_model_without_versions_is_taken_out(
    models: Repository, polled: Callable[[], Manager]
) -> None:
    models.add("a", 1)
    manager = polled()
    models.remove("a/1")
    wait_until(lambda: serving(manager) == set())
    assert isinstance(refused(manager, "a"), Unavailable)


def test_the_states_of_the_index_are_those_of_the_policy(models: Repository) -> None:
    models.add("m", 1)
    with running(models.manager(Mode.NONE)) as manager:
        (line,) = manager.index()
        assert (line.name, line.version, line.state) == ("m", 1, State.AVAILABLE)
