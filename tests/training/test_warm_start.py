"""``crossfade train warm-start``, from an export to a version that a server loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact
from crossfade.serving.cli.main import main
from crossfade.serving.repository.lineage import check
from crossfade.training.backbones.backbone import Backbone, Pixels
from crossfade.training.backbones.cutting import cut
from crossfade.training.backbones.feature_cache import FeatureCache
from crossfade.training.core.devices import Place
from crossfade.training.core.optimise import Updates
from crossfade.training.image_classifier.data import DataSet, load
from crossfade.training.warm_start import trainer
from crossfade.training.warm_start.config import WarmStartConfig
from crossfade.training.weights import savedmodel_file

LABELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with more of one colour: 24 of each."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for channel, label in enumerate(LABELS):
        (folder / label).mkdir()
        for number in range(24):
            pixels = random.integers(0, 120, (32, 32, 3))
            pixels[:, :, channel] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


def arguments(small_net: Path, pictures: Path, folder: Path, *more: str) -> list[str]:
    settings = (
        "pixels=0..255",
        "data.size=32",
        "probe_epochs=20",
        "stage_epochs=2",
        "stages=1",
        "batch_size=8",
    )
    settings += ("optimisation.learning_rate=0.01",)
    told = [
        *("train", "warm-start", "--export", str(small_net), "--data", str(pictures)),
        *("--name", "colours", "--repository", str(folder / "models")),
        *("--run-dir", str(folder / "run")),
    ]
    for setting in (*settings, *more):
        told += ["--set", setting]
    return told


@pytest.mark.slow
def test_from_an_export_to_a_served_version(
    small_net: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(small_net, pictures, tmp_path)) == 0, capsys.readouterr().err
    version = tmp_path / "models" / "colours" / "1"
    card = check(version)
    assert card.task == "warm-start"
    assert card.export is not None
    assert card.parity is not None
    assert card.parity.max_abs <= 1e-4
    assert card.metrics["test/accuracy"] > 0.5
    runtime = registry.create("onnxruntime_onnx")
    session = runtime.load(Artifact(version / "model.onnx", "colours", 1, 1, {}))
    scores = session.run(
        {"image": np.zeros((3, 3, 32, 32), np.uint8)}, "serving_default", ["scores"]
    )["scores"]
    assert scores.shape == (3, 3)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    session.close()
    assert len(list((tmp_path / "run" / "features").rglob("*.features"))) == 72


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("pixels=", "the range of its pixels"),
        ("cut=nowhere", "no tensor or node 'nowhere'"),
        ("optimisation.learning_rate=1e30", "lower the learning rate"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(  # noqa: PLR0917 - fixtures
    setting: str,
    says: str,
    small_net: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = arguments(small_net, pictures, tmp_path, setting, "optimisation.clip_norm=null")
    assert main(told) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


class Pieces:
    def __init__(self, export: Path, pictures: Path, folder: Path, **changes: Any) -> None:
        values = {"pixels": "0..255", "probe_epochs": 4, "stage_epochs": 2, "stages": 2, **changes}
        self.config = WarmStartConfig.of(values)
        found = cut(savedmodel_file.read(export))
        self.backbone = Backbone(found, Pixels.of(found, "0..255"))
        self.data: DataSet = load(pictures, self.config.data.data(32, 3), 0)
        self.cache = FeatureCache(folder / "features", self.backbone.digest(), "32", 1 << 24)
        self.place = Place(0, 1, torch.device("cpu"))

    def train(self, run: Path) -> trainer.Trained:
        pieces = (self.config, self.data, self.backbone, self.cache, run)
        return trainer.train(*pieces, place=self.place, log=None)


def test_a_stage_that_does_worse_is_taken_back(
    small_net: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 is measured as worse: the probe's weights and the export's own are what is left."""
    pieces = Pieces(small_net, pictures, tmp_path, stage_rate=1e4)
    digest = pieces.backbone.digest()
    evaluate, of_probe, of_stage = trainer.evaluate, iter(range(4)), iter(range(2))

    def measured(*given: Any) -> Any:
        found = evaluate(*given)
        if next(of_probe, None) is not None or next(of_stage, None) is None:
            return found
        return {**found, "accuracy": 0.0}

    monkeypatch.setattr(trainer, "evaluate", measured)
    trained = pieces.train(tmp_path / "run")
    assert trained.metrics["best_stage"] == 0
    assert pieces.backbone.digest() == digest
    batches = len(pieces.data.splits["training"].classes) // 32
    assert trained.metrics["steps"] == batches * (4 + 2)  # stage 2 was not tried


def test_rates_rise_after_a_stage_is_opened(
    small_net: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = []

    class Watched(Updates):
        def take(self, loss_of_batch: Any) -> float:
            factors.append(self.factor)
            return super().take(loss_of_batch)

    monkeypatch.setattr(trainer, "Updates", Watched)
    pieces = Pieces(small_net, pictures, tmp_path, probe_epochs=1, stages=1, stage_epochs=8)
    pieces.train(tmp_path / "run")
    assert factors[:6] == pytest.approx([1.0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_killed_run_goes_on_to_the_same_result(
    small_net: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pieces(small_net, pictures, tmp_path).train(tmp_path / "whole")
    evaluations = 0
    evaluate = trainer.evaluate

    def killed(*given: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 6:  # in the middle of stage 1
            raise KeyboardInterrupt
        return evaluate(*given)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            Pieces(small_net, pictures, tmp_path).train(tmp_path / "killed")
    again = Pieces(small_net, pictures, tmp_path).train(tmp_path / "killed")
    assert json.dumps(dict(again.metrics)) == json.dumps(dict(whole.metrics))
    wanted = whole.classifier.state_dict()
    for name, value in again.classifier.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_cached_features_give_the_same_loss(
    small_net: Path, pictures: Path, tmp_path: Path
) -> None:
    first = Pieces(small_net, pictures, tmp_path, stages=0).train(tmp_path / "a")
    pieces = Pieces(small_net, pictures, tmp_path, stages=0)
    second = pieces.train(tmp_path / "b")
    assert (pieces.cache.hits, pieces.cache.misses) == (72, 0)
    assert abs(first.metrics["test/loss"] - second.metrics["test/loss"]) <= 1e-6
