"""Members of an ensemble that share work are answered by one graph, where that is right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import MissingExtra
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    ModelRef,
)
from crossfade.runtimes.fusing import Branch, Fused
from crossfade.runtimes.ort import fusion as ort_fusion
from crossfade.runtimes.ort.fusion_graph import fuse_graphs
from crossfade.serving.lifecycle import fusion
from crossfade.serving.lifecycle.fusion_check import differs
from crossfade.serving.lifecycle.fusion_state import FusionState
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.repository.source import LocalSource
from tests.runtimes import test_ort_fusion as graphs
from tests.runtimes.test_ort_fusion import SIZE

PAIR = {
    "kind": "weighted",
    "scores": "probabilities",
    "members": [{"model": "a", "weight": 3}, {"model": "b", "weight": 1}],
}
LABELS = "rose\ntulip\nlily\niris\n"


def tower(layers: list[int], head: int, **more: Any) -> bytes:
    return graphs.tower(layers, head, outputs="y", **more)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merges graphs in this process: what runs in the other one has tests of its own."""

    def fuse(branches: Sequence[Branch], folder: Path, timeout_s: float = 0) -> Fused:
        target = folder / ort_fusion.FILE
        return Fused(path=target, **fuse_graphs(branches, target))

    monkeypatch.setattr(ort_fusion, "fuse", fuse)


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.managers: list[Manager] = []

    def model(self, name: str, content: bytes, version: int = 1, **config: Any) -> None:
        folder = self.path / name
        (folder / str(version)).mkdir(parents=True)
        (folder / str(version) / "model.onnx").write_bytes(content)
        (folder / "labels.txt").write_text(LABELS)
        self.configure(name, batching={"max_size": 1}, **config)

    def configure(self, name: str, **config: Any) -> None:
        (self.path / name).mkdir(exist_ok=True)
        (self.path / name / "model.yaml").write_text(yaml.safe_dump(config))

    def serve(self, **settings: Any) -> Manager:
        manager = Manager([LocalSource(self.path)], Mode.EXPLICIT, startup=["*"], **settings)
        self.managers.append(manager)
        manager.start()
        return manager


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Repository]:
    repository = Repository(tmp_path)
    yield repository
    for manager in repository.managers:
        manager.close()


@pytest.fixture
def pair(models: Repository) -> Repository:
    models.model("a", tower([1, 2], 1))
    models.model("b", tower([1, 2], 2, batch="rows", tag="own_"))
    models.configure("pair", ensemble=PAIR)
    return models


def wait(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def state(manager: Manager, name: str = "pair") -> FusionState:
    """Once it is known."""
    served = next(one for one in manager.served() if one.metadata.name == name)
    assert served.fusion is not None
    found = served.fusion
    wait(lambda: found.state.reason not in {"not tried yet", fusion.AGAIN})
    return found.state


def request(seed: int = 0, rows: int = 2) -> InferRequest:
    x = np.random.default_rng(seed).normal(size=(rows, SIZE)).astype(np.float32)
    return InferRequest({"x": x}, rows=rows)


def ask(manager: Manager, name: str, one: InferRequest) -> Any:
    served: Served = manager.lease(ModelRef(name))
    with served as model:
        (answer,) = model.infer((one,))
    assert isinstance(answer, InferResponse), answer
    return answer.outputs["y"]


def runs(manager: Manager, name: str) -> int:
    served = next(one for one in manager.served() if one.metadata.name == name)
    return sum(count for count, _ in served.statistics.runs.values())


def successes(manager: Manager, name: str) -> int:
    return next(s for s in manager.served() if s.metadata.name == name).statistics.success


def by_hand(manager: Manager, one: InferRequest) -> np.ndarray:
    return np.asarray(0.75 * ask(manager, "a", one) + 0.25 * ask(manager, "b", one), np.float32)


def test_the_pair_is_answered_by_one_graph(pair: Repository) -> None:
    manager = pair.serve()

    found = state(manager)
    before = runs(manager, "a") + runs(manager, "b")
    answer = ask(manager, "pair", request())

    assert found.fused
    assert (found.nodes, found.fused_nodes, found.shared_nodes) == (12, 8, 4)
    assert found.difference == 0
    assert runs(manager, "a") + runs(manager, "b") == before  # neither ran
    assert successes(manager, "a") == successes(manager, "b") == 1  # and both are counted
    served = next(one for one in manager.served() if one.metadata.name == "pair")
    assert served.statistics.members == {"a": {"OK": 1}, "b": {"OK": 1}}
    assert np.allclose(answer, by_hand(manager, request()), atol=1e-6)


def test_its_memory_counts_and_is_given_back(pair: Repository) -> None:
    manager = pair.serve()
    found = state(manager)
    assert found.memory_bytes > 32 << 20
    assert manager.memory.used_bytes == found.memory_bytes + sum(
        one.memory_bytes for one in manager.served()
    )
    manager.unload("pair")
    wait(lambda: manager.memory.used_bytes == sum(s.memory_bytes for s in manager.served()))


def test_nothing_is_unloaded_for_it(pair: Repository) -> None:
    manager = pair.serve(memory_bytes=70 << 20, evicts=True)  # the two members fit, and no more
    assert "memory budget" in state(manager).reason
    assert manager.memory.evictions == 0
    assert np.allclose(ask(manager, "pair", request()), by_hand(manager, request()), atol=1e-6)


def test_a_member_is_replaced_under_it(pair: Repository) -> None:
    manager = pair.serve()
    assert state(manager).fused
    pair.model("b", tower([1, 2, 3], 5), version=2)
    manager.load("b")

    answer = ask(manager, "pair", request())  # not by the graph that was made of the old version

    assert np.allclose(answer, by_hand(manager, request()), atol=1e-6)
    found = state(manager)
    assert found.fused
    assert (found.fused_nodes, found.shared_nodes) == (10, 4)
    before = runs(manager, "a") + runs(manager, "b")
    assert np.array_equal(ask(manager, "pair", request()), answer)
    assert runs(manager, "a") + runs(manager, "b") == before


def test_members_are_swapped_while_clients_ask(pair: Repository) -> None:
    manager = pair.serve()
    heads = {1: 2, 2: 7, 3: 8}
    expected = {}
    state(manager)
    expected[1] = by_hand(manager, request())
    wrong: list[Any] = []
    done = threading.Event()
    seen: set[int] = set()

    def client() -> None:
        while not done.is_set():
            try:
                answer = ask(manager, "pair", request())
            except BaseException as error:
                wrong.append(error)
                return
            known = [v for v, want in list(expected.items()) if np.allclose(answer, want, 0, 1e-6)]
            if known:
                seen.update(known)
            else:
                wrong.append(answer)

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in (2, 3):
        pair.model("c", tower([1, 2], heads[version]), version=version)
        manager.load("c")
        head = np.asarray(
            0.75 * ask(manager, "a", request()) + 0.25 * ask(manager, "c", request()), np.float32
        )
        expected[version] = head
        pair.model("b", tower([1, 2], heads[version]), version=version)
        manager.load("b")
        wait(lambda v=version: v in seen or bool(wrong))  # type: ignore[misc]
        wait(lambda: state(manager).fused or bool(wrong))
    done.set()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert seen == {1, 2, 3}


def reason(models: Repository, second: bytes | None = None, **config: Any) -> str:
    """Why a pair is not fused."""
    models.model("a", tower([1, 2], 1))
    models.model("b", second or tower([1, 2], 2), **config)
    models.configure("pair", ensemble=PAIR)
    manager = models.serve()
    found = state(manager)
    assert not found.fused
    assert np.allclose(ask(manager, "pair", request()), by_hand(manager, request()), atol=1e-6)
    return found.reason


def test_too_little_is_shared(models: Repository) -> None:
    assert "share 0% of their work, less than 20%" in reason(models, tower([4, 2], 2))


def test_other_operator_sets(models: Repository) -> None:
    assert "operator sets" in reason(models, tower([1, 2], 2, opset=18))


def test_a_member_with_a_cache(models: Repository) -> None:
    assert reason(models, cache={}) == "member 'b' has a response cache of its own"


def test_a_member_in_a_worker(models: Repository) -> None:
    assert reason(models, isolation="process") == "member 'b' runs in a worker process"


def test_members_with_other_options(models: Repository) -> None:
    assert "different options" in reason(models, options={"intra_op_threads": 2})


def test_a_missing_extra_is_named(models: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(branches: Sequence[Branch], folder: Path) -> Fused:
        raise MissingExtra("fusion", "fusing an ensemble's members")

    monkeypatch.setattr(ort_fusion, "fuse", missing)
    assert "pip install 'crossfade[fusion]'" in reason(models)


def test_a_graph_that_answers_something_else_is_not_used(
    models: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(branches: Sequence[Branch], folder: Path) -> Fused:
        (folder / "other.onnx").write_bytes(tower([1, 2], 9))
        other = Branch(folder / "other.onnx", branches[0].inputs, branches[0].outputs)
        return Fused(**fuse_graphs([other, branches[1]], folder / "f.onnx"), path=folder / "f.onnx")

    monkeypatch.setattr(ort_fusion, "fuse", wrong)
    with caplog.at_level("INFO"):
        assert "the fused graph's 'y' of 'a' differs by" in reason(models)
        wait(lambda: "members not fused" in [r.message for r in caplog.records])
    assert [r.message for r in caplog.records].count("members not fused") == 1


def test_what_breaks_unforeseen_leaves_the_members_serving(
    models: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(branches: Sequence[Branch], folder: Path) -> Fused:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(ort_fusion, "fuse", breaks)
    assert "internal error" in reason(models)


@pytest.mark.parametrize("off", [{"fuse": False}, {"member_timeout_ms": 1000}])
def test_where_it_is_not_tried(pair: Repository, off: dict[str, Any]) -> None:
    pair.configure("pair", ensemble={**PAIR, **off})
    manager = pair.serve()
    served = next(one for one in manager.served() if one.metadata.name == "pair")
    assert served.fusion is None
    assert np.allclose(ask(manager, "pair", request()), by_hand(manager, request()), atol=1e-6)


def test_an_error_is_the_members_own(pair: Repository) -> None:
    manager = pair.serve()
    assert state(manager).fused
    bad = InferRequest({"x": np.zeros((1, SIZE + 1), np.float32)})
    answers = []
    for name in ("pair", "a"):
        with manager.lease(ModelRef(name)) as model:
            answers.append(model.infer((bad,))[0])
    assert str(answers[0]) == str(answers[1])


def test_pictures_are_processed_for_each_member_and_run_once(models: Repository) -> None:
    from tests.serving.processing.pictures import file_of, scene

    preprocess = {"name": "image", "resize": {"height": 2, "width": 2}, "mean": 127.5}
    for name, head in (("a", 1), ("b", 2)):
        models.model(name, picture_tower(head))
        models.configure(name, preprocess=preprocess, batching={"max_size": 1})
    models.configure("pair", ensemble=PAIR)
    manager = models.serve()
    assert state(manager).fused
    before = runs(manager, "a")
    files = np.array([file_of(scene(h)) for h in (30, 60)], object)
    one = InferRequest({"image": files}, rows=2)
    answer = ask(manager, "pair", one)
    assert runs(manager, "a") == before
    assert np.allclose(answer, by_hand(manager, one), atol=1e-6)
    torn = InferRequest({"image": np.array([b"torn"], object)})
    with manager.lease(ModelRef("pair")) as model:
        assert "image" in str(model.infer((torn,))[0])


def picture_tower(head: int) -> bytes:
    """As ``tower``, of [n, 2, 2, 3] pictures."""
    from tests.runtimes.onnx_models import FLOAT, model, node, value, weight

    def random(seed: int, *shape: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return model(
        [
            node("Flatten", "pixels", "flat"),
            node("MatMul", "flat w", "h"),
            node("Tanh", "h", "t"),
            node("MatMul", "t head", "z"),
            node("Softmax", "z", "y"),
        ],
        [value("pixels", FLOAT, ["n", 2, 2, 3])],
        [value("y", FLOAT, ["n", 4])],
        [weight("w", random(1, 12, 16)), weight("head", random(head, 16, 4))],
    )


def test_the_registry_knows_who_fuses() -> None:
    assert registry.fuser("onnxruntime_onnx") is ort_fusion.fuse
    assert registry.fuser("fake") is None


def test_how_outputs_are_compared() -> None:
    one = np.float32([1, -4, np.inf, np.nan])
    assert differs(one, one.copy()) == 0
    assert differs(one, np.float32([1, -4.004, np.inf, np.nan])) == pytest.approx(0.001, rel=0.01)
    assert differs(one, np.float32([1, -4, -np.inf, np.nan])) == np.inf
    assert differs(one, np.float32([1, -4, np.inf, 0])) == np.inf
    assert differs(np.int8([1]), np.int8([2])) == np.inf
    assert differs(np.float32([1]), np.float64([1])) == np.inf
    assert differs(np.array([b"a"], object), np.array([b"b"], object)) == np.inf
    assert differs(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == 0
