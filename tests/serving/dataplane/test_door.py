"""The one door: what every request passes, whichever protocol brought it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crossfade.runtimes.core.errors import Code, CrossfadeError, NotFound
from crossfade.runtimes.core.model import InferResponse, InferResult, ModelRef
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.repository.source import LocalSource
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.transport.cancellation import CancelToken

X = {"name": "x", "dtype": "FP32", "shape": [-1]}
VERSION = {"name": "version", "dtype": "INT64", "shape": [-1]}


def write(root: Path, name: str, version: int = 1, **fake: Any) -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    outputs = [{"name": "y", "from": "x"}, {**VERSION, "value": version}]
    content = {"inputs": [X], "outputs": outputs, **fake}
    (folder / "fake.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    root = tmp_path_factory.mktemp("models")
    write(root, "echo", 1)
    write(root, "echo", 2)
    (root / "echo" / "model.yaml").write_text("{version_policy: all, labels: {stable: 1}}")
    trigger = {"input": "x", "value": 13}
    write(root, "picky", behaviour="fail", fail={"code": "FAILED_PRECONDITION", "when": trigger})
    (root / "broken" / "1").mkdir(parents=True)
    manager = Manager([LocalSource(root)], Mode.NONE)
    manager.start()
    yield DataPlane(manager)
    manager.close()


def query(name: str, *values: float, version: int | None = None, **fields: Any) -> Query:
    data = np.array(values, np.float32).tobytes()
    return Query(ModelRef(name, version), [RawTensor("x", "FP32", (len(values),), data)], **fields)


def shown(found: InferResult) -> Any:
    """Values and version, or the code of the error."""
    if isinstance(found, CrossfadeError):
        return found.code.name
    return (found.outputs["y"].tolist(), found.outputs["version"].tolist()[0])


def counts(plane: DataPlane, name: str, version: int = 1) -> tuple[int, dict[str, int]]:
    with plane.manager.lease(ModelRef(name, version)):
        (served,) = [
            s
            for s in plane.manager.served()
            if (s.metadata.name, s.metadata.version) == (name, version)
        ]
        return served.statistics.success, dict(served.statistics.failure)


def test_one_request(plane: DataPlane) -> None:
    (found,) = plane.infer([query("echo", 1, 2)])
    assert shown(found) == ([1, 2], 2)
    assert isinstance(found, InferResponse)
    assert (found.model.name, found.model.version) == ("echo", 2)


def test_versions_and_labels(plane: DataPlane) -> None:
    assert shown(plane.infer([query("echo", 1, version=1)])[0]) == ([1], 1)
    stable = query("echo", 1)
    stable.ref = ModelRef("echo", label="stable")
    assert shown(plane.infer([stable])[0]) == ([1], 1)


def test_queries_for_several_models_are_answered_in_their_order(plane: DataPlane) -> None:
    found = plane.infer(
        [
            query("echo", 1),
            query("picky", 2),
            query("nobody", 3),
            query("echo", 4, version=1),
            query("picky", 13),
            query("echo", 5),
            query("broken", 6),
            query("echo", 7, version=9),
            query("picky", 8),
        ]
    )
    assert [shown(f) for f in found] == [
        ([1], 2),
        ([2], 1),
        "NOT_FOUND",
        ([4], 1),
        "FAILED_PRECONDITION",
        ([5], 2),
        "UNAVAILABLE",
        "NOT_FOUND",
        ([8], 1),
    ]


def test_no_queries_are_no_answers(plane: DataPlane) -> None:
    assert plane.infer([]) == []


def bad_shape() -> Query:
    return Query(ModelRef("echo"), [RawTensor("x", "FP32", (3,), bytes(8))])


def bad_output() -> Query:
    return query("echo", 1, outputs=["nothing"])


def bad_signature() -> Query:
    return query("echo", 1, signature="an\nother")


@pytest.mark.parametrize("make", [bad_shape, bad_output, bad_signature])
def test_what_is_wrong_is_refused_and_counted_and_harms_no_neighbour(
    plane: DataPlane, make: Any
) -> None:
    _, before = counts(plane, "echo", 2)
    (alone,) = plane.infer([make()])
    together = plane.infer([query("echo", 1), make(), query("echo", 2)])
    for found in (alone, together[1]):
        assert isinstance(found, CrossfadeError)
        assert found.code is Code.INVALID_ARGUMENT
        assert found.message.isprintable()
    assert (shown(together[0]), shown(together[2])) == (([1], 2), ([2], 2))
    _, after = counts(plane, "echo", 2)
    assert after["INVALID_ARGUMENT"] == before.get("INVALID_ARGUMENT", 0) + 2


def test_counters_are_right_at_once(plane: DataPlane) -> None:
    before, failed = counts(plane, "picky")
    plane.infer([query("picky", 1, 2), query("picky", 3), query("picky", 13)])
    after, more = counts(plane, "picky")
    assert after - before == 2
    assert more["FAILED_PRECONDITION"] - failed.get("FAILED_PRECONDITION", 0) == 1


def test_outputs_wanted(plane: DataPlane) -> None:
    (found,) = plane.infer([query("echo", 1, outputs=["y"])])
    assert isinstance(found, InferResponse)
    assert list(found.outputs) == ["y"]


@pytest.mark.parametrize("several", [False, True])
def test_deadlines_and_cancellation_pass_through(plane: DataPlane, several: bool) -> None:
    token = CancelToken()
    token.set()
    late = query("echo", 1, deadline_s=time.monotonic())
    gone = query("echo", 2, cancelled=token)
    runs, _ = counts(plane, "echo", 2)
    found = plane.infer([late, gone]) if several else plane.infer([late]) + plane.infer([gone])
    assert [shown(f) for f in found] == ["DEADLINE_EXCEEDED", "CANCELLED"]
    assert counts(plane, "echo", 2)[0] == runs


def test_who_is_ready(plane: DataPlane) -> None:
    assert plane.ready
    assert plane.model_ready(ModelRef("echo"))
    assert plane.model_ready(ModelRef("echo", 1))
    assert not plane.model_ready(ModelRef("broken"))
    for ref in (ModelRef("nobody"), ModelRef("echo", 9)):
        with pytest.raises(NotFound):
            plane.model_ready(ref)


def test_a_lease_is_given_back_whatever_happens(tmp_path: Path) -> None:
    write(tmp_path, "echo")
    write(tmp_path, "picky", behaviour="fail")
    manager = Manager([LocalSource(tmp_path)], Mode.NONE)
    manager.start()
    plane = DataPlane(manager)
    live = manager.served()
    for name in ("echo", "picky"):
        plane.infer([query(name, 1)])
        plane.infer([query(name, 1), Query(ModelRef(name), [])])
        plane.infer([Query(ModelRef(name), [])])
        plane.model_ready(ModelRef(name))
    manager.close()
    assert all(served.wait_closed(0) for served in live)


def test_before_the_start_and_while_it_drains(tmp_path: Path) -> None:
    write(tmp_path, "echo")
    manager = Manager([LocalSource(tmp_path)], Mode.NONE)
    plane = DataPlane(manager)
    told: list[str] = []
    plane.on_drain(lambda: told.append("first"))
    plane.on_drain(lambda: told.append("second"))
    states = [plane.ready]
    manager.start()
    states.append(plane.ready)
    assert plane.model_ready(ModelRef("echo"))
    plane.drain()
    states.append(plane.ready)
    assert states == [False, True, False]
    assert told == ["first", "second"]
    assert not plane.model_ready(ModelRef("echo"))
    assert shown(plane.infer([query("echo", 1)])[0]) == ([1], 1), "what comes is still answered"
    manager.close()


def test_many_threads_get_their_own_answers(plane: DataPlane) -> None:
    wrong: list[Any] = []

    def ask(index: int) -> None:
        for turn in range(50):
            number = 100 * index + turn
            found = plane.infer([query("echo", number), query("picky", number + 0.5)])
            if [shown(f) for f in found] != [([number], 2), ([number + 0.5], 1)]:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
