"""What a trained classifier becomes in a repository: ONNX, labels, ``model.yaml``, a card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from crossfade.serving.repository.lineage import FILE, Card
from crossfade.training.core import onnx_file, seeds
from crossfade.training.core.devices import Place
from crossfade.training.image_classifier.config import Data, ImageClassifierConfig
from crossfade.training.image_classifier.data import INPUT, DataSet, preprocess
from crossfade.training.image_classifier.network import Served
from crossfade.training.image_classifier.trainer import Trained
from crossfade.training.lineage import facts

TASK: Final = "image-classifier"
OUTPUT: Final = "scores"
_MODEL: Final = "model.onnx"
_LABELS: Final = "labels.txt"
_REAL_ROWS: Final = 64


def write(
    folder: Path,
    trained: Trained,
    data: DataSet,
    config: ImageClassifierConfig,
    *,
    provenance: Mapping[str, str],
    place: Place,
) -> Card:
    """Fills a version's folder; raises as ``write_version``.

    Args:
        folder: an empty one.
        trained: what the run came to.
        data: what it was trained and tested on.
        config: of the run.
        provenance: where values of ``config`` are from.
        place: of this process.
    """
    told = {
        "task": TASK,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "provenance": provenance,
    }
    return write_version(folder, trained.classifier, trained.metrics, data, told=told, place=place)


def write_version(
    folder: Path,
    classifier: nn.Module,
    metrics: Mapping[str, float],
    data: DataSet,
    *,
    told: Mapping[str, Any],
    place: Place,
) -> Card:
    """Fills the folder of a version whose classifier gives logits for pixels.

    Args:
        folder: empty.
        classifier: uint8 [n, channels, size, size] to logits [n, classes].
        metrics: for the card.
        data: its test pictures prove that the file answers as the classifier.
        told: the card's ``task``, ``seed``, ``config``, and what else it may have.
        place: where it was trained.

    Raises:
        FailedPrecondition: the model cannot be written, or the file answers otherwise.
    """
    served = Served(classifier).cpu().eval()
    test = data.splits["test"].pixels
    onnx_file.write(served, {INPUT: test[:1].repeat(2, 1, 1, 1)}, [OUTPUT], folder / _MODEL)
    (folder / _LABELS).write_text("".join(f"{label}\n" for label in data.labels), "utf-8")
    run = onnx_file.runner(folder / _MODEL, OUTPUT)

    @torch.no_grad()
    def ours(batch: Any) -> Any:
        return served(torch.from_numpy(batch)).numpy()

    noise = torch.randint(
        256, (7, *test.shape[1:]), generator=seeds.generator(told["seed"], "parity")
    )
    batches = [
        test[:_REAL_ROWS],
        test[:1],
        noise.byte(),
        torch.stack([noise[0] * 0, noise[0] * 0 + 255]),
    ]
    proof = facts.parity(ours, lambda b: run({INPUT: b}), [np.asarray(b.byte()) for b in batches])
    card = Card(
        **told,
        created=facts.now(),
        data=data.origin,
        metrics=dict(metrics),
        parity=proof,
        environment=facts.environment(place.device, place.world),
        revision=facts.revision(Path.cwd()),
        files=facts.digests(folder),
    )
    (folder / FILE).write_text(card.text(), "utf-8")
    return card


def model_yaml(config: ImageClassifierConfig) -> dict[str, Any]:
    """What ``model.yaml`` must say so that clients send picture files and get labels."""
    return model_yaml_of(config.data)


def model_yaml_of(data: Data) -> dict[str, Any]:
    """The same, of how pictures are read."""
    pre = preprocess(data).model_dump(mode="json", exclude_defaults=True)
    return {"task": "classification", "preprocess": pre, "postprocess": {}}
