"""A detector on an export: what is read of it, what stays as it was, and the chain to ARR-COC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.training.arr_coc import detector_entry, entry, run
from crossfade.training.arr_coc.backbone import FEATURES
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source
from crossfade.training.arr_coc.export_detector import ExportDetector
from crossfade.training.arr_coc.geometry import GRID_HEIGHT, GRID_WIDTH, INPUT_HEIGHT, INPUT_WIDTH
from crossfade.training.arr_coc.pictures import Pictures
from crossfade.training.backbones.opening import open_backbone
from tests.training.arr_coc.scenes import SETTINGS, compose

CONFIG = ArrCocConfig.load(None, SETTINGS)
PICTURES = (2, 3, INPUT_HEIGHT, INPUT_WIDTH)


def test_an_export_of_another_size_is_read_patch_by_patch(small_net: Path) -> None:
    detector = ExportDetector(open_backbone(small_net, "", "", "0..255"), 3)
    seen = detector(torch.rand(PICTURES) * 255)
    assert seen.features.shape == (2, FEATURES, GRID_HEIGHT, GRID_WIDTH)
    assert seen.class_logits.shape == (2, 3, GRID_HEIGHT, GRID_WIDTH)
    seen.class_logits.sum().backward()
    assert all(p.grad is None for p in detector.export.parameters())
    reduces = [reduce[0].weight for reduce in detector.reduce]  # type: ignore[index]
    assert len(reduces) == 3  # a map of each resolution
    assert all(float(weight.grad.abs().sum()) > 0 for weight in reduces)


def test_finer_maps_are_the_exports_own(small_net: Path) -> None:
    backbone = open_backbone(small_net, "", "", "0..255")
    pictures = torch.randint(256, (1, 3, 64, 48), dtype=torch.uint8)
    maps = backbone.maps(pictures, 3)
    assert torch.equal(maps[-1], backbone(pictures))
    sides = [found.shape[2] for found in maps]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == len(sides)
    assert len(backbone.maps(pictures, 99)) >= len(maps)


@pytest.mark.slow
def test_a_real_export_is_the_same_after_the_training(shared: Path) -> None:
    path = shared / "automl-vision-edge" / "flowers" / "model.tflite"
    detector = ExportDetector(open_backbone(path, "", "", ""), 2)
    assert detector.export.size == (224, 224)
    before = detector.export.digest()
    parameters = [p for p in detector.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.1)
    detector.train()
    detector(torch.rand(PICTURES) * 255).objectness.mean().backward()
    optimizer.step()
    assert detector.export.digest() == before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(compose(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="module")
def exported(data: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector as ``crossfade train detector`` writes it."""
    folder = tmp_path_factory.mktemp("detector")
    begun = run.Run(data, CONFIG, folder / "run")
    (folder / "version").mkdir()
    detector_entry.write(folder / "version", begun, begun.detector())
    return folder / "version"


@pytest.mark.slow
def test_a_detector_says_where_things_are(exported: Path, data: Source) -> None:
    session = ort.InferenceSession(str(exported / "model.onnx"))
    image = np.zeros(PICTURES, np.uint8)
    scores, objectness, centres = session.run(None, {"image": image})
    assert scores.shape == (2, 3, GRID_HEIGHT, GRID_WIDTH)
    assert objectness.shape == (2, GRID_HEIGHT, GRID_WIDTH)
    assert centres.shape == (2, 3, 2, GRID_HEIGHT, GRID_WIDTH)
    assert ((scores > 0) & (scores < 1)).all()
    labels = (exported / "labels.txt").read_text().split("\n")
    assert labels == ["digit 0", "digit 3", "digit 5", ""]


@pytest.mark.slow
def test_from_a_detector_to_arr_coc(exported: Path, data: Source, tmp_path: Path) -> None:
    export = run.Export(exported / "model.onnx")
    trained = run.train(data, CONFIG, tmp_path / "run", export)
    assert isinstance(trained.backbone, ExportDetector)
    assert trained.export is not None
    fresh = open_backbone(export.path, "", "", "")
    assert trained.backbone.export.digest() == fresh.digest()
    (tmp_path / "version").mkdir()
    card = entry.write(tmp_path / "version", trained, {})
    assert card.export == trained.export
    assert card.parity is not None
    with pytest.raises(FailedPrecondition, match="another export"):
        run.train(data, CONFIG, tmp_path / "run")
    pictures = Pictures.load(trained.data.of("test"), trained.data.labels)
    again = run.train(data, CONFIG, tmp_path / "run", export)
    for batch in pictures.batches():
        with torch.inference_mode():
            assert torch.equal(again.backbone(batch).features, trained.backbone(batch).features)


def test_an_export_that_is_no_picture_model(table_net: Path) -> None:
    with pytest.raises(InvalidArgument, match="one input"):
        open_backbone(table_net, "", "", "")
