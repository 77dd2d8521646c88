"""The baseline of pictures: the best of a few networks, within a budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.repository import lineage
from crossfade.training.baseline import images
from crossfade.training.baseline.images import LocalImageTrainingJob


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of each of two labels: stripes that lie, and stripes that stand."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("stripes")
    for label in ("lying", "standing"):
        (folder / label).mkdir()
        for number in range(40):
            pixels = (np.arange(16) // 2 % 2 * 200)[:, None] + rng.integers(0, 50, (16, 16))
            pixels = pixels if label == "lying" else pixels.T
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    return folder


def test_the_first_network_is_always_trained(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_HOUR_S", 1e-9)  # no machine is so fast
    told = []
    job = LocalImageTrainingJob("s", size=16, color="gray", epochs=6, report=told.append)
    model = job.run(
        stripes, budget_milli_node_hours=1, test_fraction_split=0.2, training_fraction_split=0.7
    )
    assert list(model.tried) == ["16-32-64"]
    assert told[-1].done == 1
    evaluation = model.evaluate()
    assert evaluation.rows == 16
    assert evaluation.metrics["accuracy"].value == 1
    assert evaluation.metrics["majorityAccuracy"].value == 0.5
    says = model.export(tmp_path)
    assert says["task"] == "classification"
    assert lineage.check(tmp_path).metrics["test/accuracy"] == 1
    assert 0.5 < lineage.check(tmp_path).metrics["test/accuracy/low"] < 1


def test_what_is_not_made_here(stripes: Path) -> None:
    with pytest.raises(InvalidArgument, match="'object_detection' is not made here"):
        LocalImageTrainingJob("s", "object_detection")
    with pytest.raises(InvalidArgument, match="with several labels"):
        LocalImageTrainingJob("s", multi_label=True)
    with pytest.raises(InvalidArgument, match="add up to 1"):
        LocalImageTrainingJob("s").run(stripes, test_fraction_split=0.5)
