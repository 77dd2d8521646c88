"""Ensembles as models of the repository: they follow what their members are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crossfade.ensemble.adapting import Setup
from crossfade.ensemble.adaptive import Following
from crossfade.ensemble.combine import Rule
from crossfade.ensemble.weights import Candidate, Fit, Member, WeightsReport
from crossfade.runtimes.core.errors import LoadFailed, Unavailable
from crossfade.runtimes.core.model import InferRequest, InferResponse, ModelRef
from crossfade.serving.lifecycle.dependents import waves
from crossfade.serving.lifecycle.loader import Loading
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.processing import decoding
from tests.serving.lifecycle.folders import Repository, lines, serving, wait_until
from tests.serving.processing.pictures import file_of, scene

ABC = ["a", "b", "c"]


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


def classifier(
    models: Repository, name: str, labels: Sequence[str] = ABC, version: int = 1, **more: Any
) -> None:
    content = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, len(labels)]}],
        "outputs": [{"name": "scores", "from": "x"}],
        **more,
    }
    models.write(f"{name}/labels.txt", "\n".join(labels))
    models.write(f"{name}/{version}/fake.yaml", yaml.safe_dump(content))


def weighted(models: Repository, name: str, *members: Any, **keys: Any) -> None:
    named = [{"model": one} if isinstance(one, str) else one for one in members]
    section = {"kind": "weighted", "scores": "probabilities", "members": named}
    models.configure(name, ensemble=section, **keys)


def ask(manager: Manager, name: str, *row: float, version: int | None = None) -> list[float]:
    with manager.lease(ModelRef(name, version)) as model:
        (found,) = model.infer((InferRequest({"x": np.array([row], np.float32)}),))
    assert isinstance(found, InferResponse), found
    scores: list[float] = found.outputs["scores"][0].round(3).tolist()
    return scores


def state(manager: Manager, name: str) -> tuple[int | None, str | None, str]:
    (line,) = lines(manager, name)
    return line


def test_members_come_first_at_the_start(
    models: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    weighted(models, "a_outer", "b_inner", "z")
    weighted(models, "b_inner", "x", "y")
    for name in "xyz":
        classifier(models, name)
    with running(models.manager(Mode.NONE)) as manager:
        assert state(manager, "a_outer") == (1, "AVAILABLE", "")
        assert ask(manager, "a_outer", 1, 0, 0) == [1, 0, 0]
    assert "load failed" not in caplog.text, "nothing is tried before its turn"


def test_loading_an_ensemble_loads_its_members(models: Repository) -> None:
    weighted(models, "outer", "inner", "z")
    weighted(models, "inner", "x")
    for name in "xz":
        classifier(models, name)
    with running(models.manager(Mode.EXPLICIT)) as manager:
        assert serving(manager) == set()
        manager.load("outer")
        assert {name for name, _ in serving(manager)} == {"outer", "inner", "x", "z"}


def test_so_does_naming_it_at_the_start(models: Repository) -> None:
    weighted(models, "outer", "x")
    classifier(models, "x")
    classifier(models, "other")
    with running(models.manager(Mode.EXPLICIT, startup=["outer"])) as manager:
        assert {name for name, _ in serving(manager)} == {"outer", "x"}


def test_it_waits_for_a_member_and_goes_with_it(models: Repository) -> None:
    weighted(models, "e", "x", "y")
    classifier(models, "x")
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        assert state(manager, "e")[1] == "END"
        assert "member 'y' is not there" in state(manager, "e")[2]
        with pytest.raises(LoadFailed, match="member 'y' is not there"):
            manager.load("e")
        classifier(models, "y")
        manager.load("y")
        assert state(manager, "e") == (1, "AVAILABLE", "")
        manager.unload("y")
        assert "member 'y' is not there" in state(manager, "e")[2]
        with pytest.raises(Unavailable), manager.lease(ModelRef("e")):
            pass
        manager.load("y")
        assert ask(manager, "e", 0, 1, 0) == [0, 1, 0]


def test_an_ensemble_of_an_ensemble_goes_and_comes_back_with_it(models: Repository) -> None:
    weighted(models, "outer", "inner")
    weighted(models, "inner", "x")
    classifier(models, "x")
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        manager.unload("x")
        assert "member 'inner' is not there" in state(manager, "outer")[2]
        manager.load("x")
        assert ask(manager, "outer", 0, 1, 0) == [0, 1, 0]
        manager.unload("outer")
        manager.unload("x")
        manager.load("x")
        assert "outer" not in {name for name, _ in serving(manager)}, "nobody asked for it"


def test_unloading_it_may_unload_the_members_that_nobody_else_needs(models: Repository) -> None:
    weighted(models, "outer", "inner", "y")
    weighted(models, "inner", "x", "z")
    weighted(models, "other", "x")
    for name in "xyz":
        classifier(models, name)
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        manager.unload("outer", members=True)
        assert {name for name, _ in serving(manager)} == {"other", "x"}
        manager.unload("other")
        assert {name for name, _ in serving(manager)} == {"x"}


def test_a_member_that_no_longer_fits(models: Repository) -> None:
    weighted(models, "e", "x", "y")
    classifier(models, "x")
    classifier(models, "y")
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        classifier(models, "y", ["a", "b"])
        manager.load("y")
        line = state(manager, "e")
        assert line[1] == "END"
        assert "input 'x' is FP32 [-1, 3] for member 'x' and FP32 [-1, 2] for 'y'" in line[2]
        classifier(models, "y", ["c", "b", "a"])
        manager.load("y")
        assert ask(manager, "e", 1, 0, 0) == pytest.approx([0.5, 0, 0.5], abs=1e-3)


def test_a_reload_of_the_same_member_leaves_it_alone(models: Repository) -> None:
    weighted(models, "e", "x")
    classifier(models, "x")
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        before = manager.lease(ModelRef("e"))
        before.__exit__()
        classifier(models, "x")
        manager.load("x")
        after = manager.lease(ModelRef("e"))
        after.__exit__()
        assert after is before
        assert ask(manager, "e", 1, 0, 0) == [1, 0, 0]


def test_a_broken_configuration_leaves_the_old_one_serving(models: Repository) -> None:
    weighted(models, "e", "x")
    classifier(models, "x")
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        weighted(models, "e", {"model": "x", "outputs": {"nothing": "scores"}})
        with pytest.raises(LoadFailed, match="no output 'nothing'"):
            manager.load("e")
        assert ask(manager, "e", 1, 0, 0) == [1, 0, 0]
        models.configure("e", ensemble={"kind": "weighted", "member": []})
        with pytest.raises(LoadFailed, match="did you mean 'members'"):
            manager.load("e")
        assert ask(manager, "e", 1, 0, 0) == [1, 0, 0]


def test_an_ensemble_of_itself(models: Repository) -> None:
    weighted(models, "one", "two")
    weighted(models, "two", "three", "x")
    weighted(models, "three", "one")
    classifier(models, "x")
    with running(models.manager(Mode.POLL, poll_s=0.05)) as manager:
        reason = state(manager, "one")[2]
        assert reason == "the ensemble is a member of itself: one -> two -> three -> one"
        weighted(models, "three", "x")
        wait_until(lambda: ("one", 1) in serving(manager))


def test_members_by_version_and_label(models: Repository) -> None:
    classifier(models, "x", version=1)
    classifier(models, "x", version=2)
    models.configure("x", version_policy="all", labels={"stable": 1})
    weighted(
        models,
        "e",
        {"model": "x", "version": 2, "name": "new", "weight": 1},
        {"model": "x", "label": "stable", "name": "old", "weight": 3},
    )
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        ask(manager, "e", 1, 0, 0)
        counts = {
            s.metadata.version: s.statistics.success
            for s in manager.served()
            if s.metadata.name == "x"
        }
        assert counts == {1: 1, 2: 1}
        (found,) = [s for s in manager.served() if s.metadata.name == "e"]
        assert found.statistics.members == {"new": {"OK": 1}, "old": {"OK": 1}}
        assert (found.statistics.success, found.statistics.runs.keys()) == (1, {1})


def test_versions_of_an_ensemble_differ_in_their_learned_weights(models: Repository) -> None:
    classifier(models, "x")
    classifier(models, "y", ["c", "b", "a"])
    weighted(models, "e", "x", "y", version_policy="all")
    for version, share in ((1, 1.0), (2, 0.25)):
        rows = tuple(Member(name, 1.0, 0.1, 0.1, 0.1) for name in "xy")
        fit = Fit((share, 1 - share), Rule.PROBABILITY)
        chosen = Candidate("convex", 0.1, 0.0, 0.0, fit.weights, fit)
        report = WeightsReport(100, rows, (chosen,), "convex", 0.1)
        models.write(f"e/{version}/weights.json", report.to_json())
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        assert ask(manager, "e", 1, 0, 0, version=1) == pytest.approx([1, 0, 0], abs=0.01)
        assert ask(manager, "e", 1, 0, 0) == pytest.approx([0.25, 0, 0.75], abs=0.01)
        for bad in (json.dumps({"no": "report"}).encode(), b"\xff\xfe{"):
            (models.root / "e" / "2" / "weights.json").write_bytes(bad)
            with pytest.raises(LoadFailed, match=r"weights\.json: this is not a report"):
                manager.load("e")
        assert ask(manager, "e", 1, 0, 0) == pytest.approx([0.25, 0, 0.75], abs=0.01)


def test_weights_follow_from_where_a_report_begins(models: Repository) -> None:
    section = {"kind": "weighted", "scores": "probabilities", "adapt": {"min_weight": 0.1}}
    models.configure("e", ensemble={**section, "members": [{"model": one} for one in "xy"]})
    classifier(models, "x")
    classifier(models, "y", ["c", "b", "a"])
    rows = tuple(Member(name, 1.0, 0.1, 0.1, 0.1) for name in "xy")
    fit = Fit((1.0, 0.0), Rule.PROBABILITY)
    chosen = Candidate("best_single", 0.1, 0.0, 0.0, fit.weights, fit)
    report = WeightsReport(1_000_000, rows, (chosen,), "best_single", 0.3)
    models.write("e/weights.json", report.to_json())
    kept: list[Following] = []

    def open_(setup: Setup) -> Following:
        kept.append(Following(setup))
        return kept[-1]

    with running(models.manager(Mode.NONE, loading=Loading(adapt=open_))) as manager:
        found = ask(manager, "e", 1, 0, 0)
        assert found == pytest.approx([0.9, 0, 0.1], abs=1e-3), "none is below min_weight"
        assert kept[-1].setup.reference == 0.3
        kept[-1].state = dataclasses.replace(kept[-1].state, weights=(0.5, 0.5))
        assert ask(manager, "e", 1, 0, 0) == pytest.approx([0.5, 0, 0.5], abs=1e-3)
    stacked = dataclasses.replace(chosen, fit=Fit((1.0, 0.5), Rule.LOGIT))
    report = dataclasses.replace(report, candidates=(stacked,))
    models.write("e/weights.json", report.to_json())
    with running(models.manager(Mode.NONE, loading=Loading(adapt=open_))) as manager:
        assert "stacking) cannot adapt" in state(manager, "e")[2]
    (models.root / "e" / "weights.json").unlink()
    with running(models.manager(Mode.NONE)) as manager:
        assert "needs a database for feedback" in state(manager, "e")[2]


def test_rows_are_bounded_as_configured(models: Repository) -> None:
    classifier(models, "x")
    models.configure("x", max_batch_size=16)
    weighted(models, "e", "x")
    weighted(models, "few", "x", max_batch_size=4)
    weighted(models, "none", "x", max_batch_size=0)
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        limits = {s.metadata.name: s.metadata.max_batch_size for s in manager.served()}
        assert limits == {"x": 16, "e": 16, "few": 4, "none": 0}


def test_a_warm_up_request_must_pass(models: Repository) -> None:
    classifier(models, "x")
    weighted(models, "e", "x", warmup=[{"inputs": {"x": [[0.5, 0.5, 0.0]]}}])
    weighted(models, "bad", "x", warmup=[{"inputs": {"x": [[5, 5, 5]]}}])
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        assert state(manager, "e")[1] == "AVAILABLE"
        assert "warm-up request failed" in state(manager, "bad")[2]


def test_a_picture_is_decoded_once_for_all_members(
    models: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, side, mean in (("small", 4, 0.0), ("large", 6, 127.5)):
        shape = [-1, side, side, 3]
        classifier(
            models,
            name,
            inputs=[{"name": "pixels", "dtype": "FP32", "shape": shape}],
            outputs=[{"name": "scores", "dtype": "FP32", "shape": [-1, 3], "value": 0.25}],
        )
        models.configure(name, preprocess={"name": "image", "mean": mean}, task="classification")
    section = {"kind": "weighted", "scores": "values", "members": [{"model": "small"}]}
    models.configure("e", ensemble={**section, "members": [{"model": "small"}, {"model": "large"}]})
    decoded: list[int] = []
    plain = decoding._decode

    def counting(data: bytes, max_pixels: int) -> Any:
        decoded.append(len(data))
        return plain(data, max_pixels)

    monkeypatch.setattr(decoding, "_decode", counting)
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        with manager.lease(ModelRef("e")) as model:
            signature = model.metadata.signatures["serving_default"]
            assert [(spec.name, spec.dtype) for spec in signature.inputs] == [("image", "BYTES")]
            files = np.array([file_of(scene())], np.object_)
            (found,) = model.infer((InferRequest({"image": files}),))
        assert isinstance(found, InferResponse), found
        assert found.outputs["scores"].tolist() == [[0.25] * 3]
    assert len(decoded) == 1


@given(st.dictionaries(st.sampled_from("abcdef"), st.frozensets(st.sampled_from("abcdefg"))))
def test_waves_put_members_before_ensembles(members: dict[str, frozenset[str]]) -> None:
    found = list(waves(members))
    assert sorted(name for wave in found for name in wave) == sorted(members)
    before: set[str] = set()
    for at, wave in enumerate(found):
        needed = set().union(*(members[name] for name in wave)) & members.keys()
        assert needed <= before or at == len(found) - 1, "only a cycle comes before its members"
        before |= set(wave)


def test_a_member_that_was_evicted_is_loaded_again_when_it_is_asked(models: Repository) -> None:
    for name in "xyz":
        classifier(models, name, memory_bytes=4 << 20)
    weighted(models, "e", "x")
    settings: dict[str, Any] = {"memory_bytes": 10 << 20, "evicts": True}
    with running(models.manager(Mode.EXPLICIT, startup=["e"], **settings)) as manager:
        manager.load("y")
        manager.load("z")
        assert state(manager, "x")[2] == "evicted: its memory went to 'z'"
        assert state(manager, "e")[1] == "AVAILABLE"
        manager.load("e")  # which looks at its members and wakes none of them
        assert state(manager, "x")[2] == "evicted: its memory went to 'z'"
        assert ask(manager, "e", 1, 0, 0) == [1, 0, 0]
        assert state(manager, "x")[1] == "AVAILABLE"


def test_an_automl_export_and_its_successor(models: Repository, shared: Path) -> None:
    """The export stores its scores in bytes; the other model gives logits in another order."""
    edge = shared / "automl-vision-edge" / "flowers"
    export = models.root / "export" / "1"
    export.mkdir(parents=True)
    for name in ("model.tflite", "dict.txt"):
        (export / name).symlink_to(edge / name)
    labels = (edge / "dict.txt").read_text().split()
    models.configure("export", preprocess={"name": "image"}, task="classification")
    classifier(
        models,
        "custom",
        labels[::-1],
        inputs=[{"name": "pixels", "dtype": "FP32", "shape": [-1, 8, 8, 3]}],
        outputs=[{"name": "logits", "dtype": "FP32", "shape": [-1, len(labels)], "value": 0.0}],
    )
    models.configure("custom", preprocess={"name": "picture"}, task="classification")
    members = [
        {"model": "export", "scores": "probabilities"},
        {
            "model": "custom",
            "scores": "logits",
            "inputs": {"picture": "image"},
            "outputs": {"logits": "scores"},
        },
    ]
    models.configure("e", ensemble={"kind": "weighted", "members": members})
    picture = next(iter(sorted((edge / "images").glob("dandelion*.jpg")))).read_bytes()
    with running(models.manager(Mode.EXPLICIT, startup=["*"])) as manager:
        asked = InferRequest({"image": np.array([picture], np.object_)})
        found = []
        for name in ("export", "e"):
            with manager.lease(ModelRef(name)) as model:
                (answer,) = model.infer((asked,))
                assert isinstance(answer, InferResponse), answer
                found.append(answer.outputs["scores"][0].astype(np.float64))
    stored, combined = found
    expected = (stored / stored.sum() + 1 / len(labels)) / 2
    assert np.allclose(combined, expected, atol=2e-3)
    assert labels[int(combined.argmax())] == "dandelion"


def test_a_member_that_no_ensemble_names_any_more_is_forgotten(models: Repository) -> None:
    classifier(models, "x")
    weighted(models, "e", "x", "nowhere")
    with running(models.manager(Mode.POLL, poll_s=0.01)) as manager:
        assert "there is no such model" in state(manager, "nowhere")[2]
        weighted(models, "e", "x")
        wait_until(lambda: lines(manager, "nowhere") == [])
        wait_until(lambda: state(manager, "e") == (1, "AVAILABLE", ""))
