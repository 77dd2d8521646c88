from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import load_file

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from crossfade.serving.repository.lineage import Card, check
from crossfade.training.arr_coc import command, compare, entry, export, pipeline, plots, report, run
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source
from crossfade.training.arr_coc.geometry import GRID_HEIGHT, GRID_WIDTH, PATCHES
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.run import Trained
from crossfade.training.arr_coc.stage import Stage
from crossfade.training.arr_coc.summary import card_metrics, summarise
from crossfade.training.core.config import head
from crossfade.training.core.optimise import NotFinite
from tests.training.arr_coc.scenes import SETTINGS, compose

pytestmark = pytest.mark.slow
CONFIG = ArrCocConfig.load(None, SETTINGS)
LANGUAGE = Language.make(("x",), {}, ("any",), ())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(compose(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "whole"


@pytest.fixture(scope="module")
def trained(data: Source, folder: Path) -> Trained:
    return run.train(data, CONFIG, folder)


def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    data: Source, trained: Trained, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Stage.record

    def killed(self: Stage, *arguments: Any) -> None:
        record(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stage, "record", killed)
    for _ in range(2):  # in the first epoch of the backbone, then in its second
        with pytest.raises(KeyboardInterrupt):
            run.train(data, CONFIG, tmp_path / "cut")
    monkeypatch.undo()
    run.train(data, CONFIG, tmp_path / "cut")
    for name in ("backbone.safetensors", "heads.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (folder / name).read_bytes()


def test_the_detector_is_the_same_after_the_heads_were_trained(
    trained: Trained, folder: Path
) -> None:
    kept = load_file(folder / "backbone.safetensors")
    for name, value in trained.backbone.state_dict().items():
        assert torch.equal(value, kept[name])


def test_a_folder_of_another_run_is_refused(data: Source, trained: Trained, folder: Path) -> None:
    with pytest.raises(FailedPrecondition, match="another config"):
        run.train(data, CONFIG.model_copy(update={"seed": 7}), folder)


def test_a_loss_that_is_no_number_is_told_and_leaves_no_weights(
    data: Source, tmp_path: Path
) -> None:
    wild = ArrCocConfig.load(None, [*SETTINGS, "backbone.optimisation.learning_rate=1.0e+30"])
    with pytest.raises(NotFinite, match="learning rate"):
        run.train(data, wild, tmp_path / "wild")
    assert not list((tmp_path / "wild").glob("*.safetensors"))


def test_a_full_disk_is_told_and_leaves_no_half_weights(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceExhausted, match="disk is full"):
        run.save_weights(trained.backbone, tmp_path / "backbone.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_what_is_evaluated_is_plain_and_complete(
    trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "RESAMPLES", 20)
    monkeypatch.setattr(compare, "EXACT_RESAMPLES", 5)
    found = command.evaluated(trained, folder)
    assert found == json.loads((folder / command.EVALUATION).read_text())
    assert set(found["groups"]) == {"class", "seen", "heldout"}
    oracle = found["groups"]["class"]["oracle"]
    assert oracle["average_precision"] == oracle["precision"] == 1
    for values in found["gains"].values():
        assert values["gain_lower"] <= values["gain_upper"]
    half = found["coverage"]["50%"]["class"]
    assert half["oracle"] >= half["arr_coc"] - 1e-9
    assert half["oracle"] > half["random"]
    assert found["quality_db"]["class"]["oracle"] > found["quality_db"]["class"]["uniform 100"]
    assert card_metrics(found)["test/token_recall"] > 0
    written = report.tables([("a", found), ("b", found)])
    assert "Runs: a / b." in written
    ours = found["groups"]["heldout"]["arr_coc"]["average_precision"]
    assert f"| held-out pairs | **ARR-COC** | {ours:.3f} / {ours:.3f} |" in written
    assert "tokens saved, digit 0 |" in written
    assert len({line.count("|") for line in written.split("\n\n")[1].splitlines()}) == 1
    summary = summarise([("a", found), ("b", found)])
    assert summary["gain_vs_label_heldout_lower"] == pytest.approx(
        found["gains"]["heldout_vs_label"]["gain_lower"]
    )


@pytest.fixture(scope="module")
def session(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export.write(trained, entry.thresholds(trained), file)
    return ort.InferenceSession(str(file))


def feed(*texts: str, budget: int = 0) -> dict[str, np.ndarray]:
    image, _, _ = export.examples(LANGUAGE)
    return {
        "image": image[:1],
        "query": np.array([texts], dtype=object),
        "token_budget": np.full((1, len(texts)), budget, dtype=np.int32),
    }


def test_the_file_spends_each_budget_exactly(session: ort.InferenceSession) -> None:
    for budget in (64 * PATCHES, 64 * PATCHES + 1, 18_816, 31_337, 400 * PATCHES):
        (tokens,) = session.run(["patch_tokens"], feed("digit 3", "left", budget=budget))
        assert tokens.dtype == np.int32
        assert tokens.shape == (1, 2, GRID_HEIGHT, GRID_WIDTH)
        assert (tokens.sum(axis=(2, 3)) == budget).all()
        assert tokens.min() >= 64
        assert tokens.max() <= 400


def test_what_is_no_pixel_counts_as_the_nearest(session: ort.InferenceSession) -> None:
    wild = feed("digit 3")
    tame = dict(wild)
    noise = np.random.default_rng(0).choice([-3e38, -1, 100, 256, 3e38], wild["image"].shape)
    wild["image"] = noise.astype(np.float32)
    tame["image"] = np.clip(wild["image"], 0, 255)
    found, wanted = (session.run(["relevance"], one)[0] for one in (wild, tame))
    assert np.isfinite(found).all()
    assert np.array_equal(found, wanted)


def test_the_file_keeps_a_budget_that_cannot_be_to_the_limits(
    session: ort.InferenceSession,
) -> None:
    for budget, total in ((1, 64 * PATCHES), (10**6, 400 * PATCHES)):
        (tokens,) = session.run(["patch_tokens"], feed("digit 3", budget=budget))
        assert tokens.sum() == total


def test_the_file_tells_what_it_did_not_understand(session: ort.InferenceSession) -> None:
    texts = ("digit 3 left", "purple digit", "", "LEFT")
    found = session.run(["unknown_words", "fallback", "relevance"], feed(*texts))
    assert found[0].tolist() == [[0, 1, 0, 0]]
    assert found[1].tolist() == [[False, True, True, True]]
    alone = session.run(["relevance"], feed("digit 3 left"))[0]
    assert np.allclose(found[2][:, :1], alone, atol=1e-5)


def test_without_a_budget_patches_have_enough_or_the_least(session: ort.InferenceSession) -> None:
    tokens, relevance = session.run(["patch_tokens", "relevance"], feed("digit 3"))
    assert set(np.unique(tokens)) <= {64, 196}
    if len(np.unique(tokens)) == 2:
        assert relevance[tokens == 196].min() >= relevance[tokens == 64].max()


def test_without_strings_there_are_two_models_and_a_pipeline(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards: list[Card] = []
    made = pipeline.publish_split(trained, {}, cards, tmp_path, "cells")
    assert check(made) == cards[0]

    def again(trained: Trained, thresholds: Any, file: Path) -> Any:
        shutil.copyfile(made / "model.onnx", file)
        return cards[0].parity

    monkeypatch.setattr(export, "write_vision", again)
    newer = pipeline.publish_split(trained, {}, cards, tmp_path, "cells")
    assert [made, newer] == [tmp_path / "cells-vision" / number for number in "12"]
    assert sorted(p.name for p in (tmp_path / "cells-text").iterdir()) == ["1"]
    assert [p.name for p in (tmp_path / "cells").iterdir()] == ["model.yaml"]
    model = onnx.load(str(made / "model.onnx"))
    kinds = {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    assert onnx.TensorProto.STRING not in kinds
    assert b"export.py" not in (made / "model.onnx").read_bytes()  # paths of this machine
    other = dataclasses.replace(
        trained.language, class_words=(("figure",), *trained.language.class_words[1:])
    )
    with pytest.raises(FailedPrecondition, match="knows other words"):
        pipeline.publish_split(
            dataclasses.replace(trained, language=other), {}, cards, tmp_path, "cells"
        )
    (tmp_path / "cells" / "model.yaml").write_text("platform: onnx\n")
    with pytest.raises(AlreadyExists, match="'cells' is another model"):
        pipeline.publish_split(trained, {}, cards, tmp_path, "cells")
    assert not (tmp_path / "cells-vision" / "3").exists()


def test_shipped_configurations_say_what_they_are() -> None:
    for name in ("bccd", "digits"):
        file = command.config_file(name)
        assert file is not None
        assert set(head(file)) == {"Command", "Expected time", "Expected result"}
        ArrCocConfig.load(file)
    with pytest.raises(NotFound, match="bccd, digits"):
        command.config_file("cats")


def test_the_report_has_its_pictures(trained: Trained, folder: Path, tmp_path: Path) -> None:
    evaluation = json.loads((folder / command.EVALUATION).read_text())
    plots.write(trained, [("a", trained, evaluation)], tmp_path)
    found = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(found) == {f"arr-coc-{what}.png" for what in ("precision", "coverage", "tokens")}
    assert max(found.values()) < 300_000
