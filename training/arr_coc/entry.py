"""What a run becomes in a repository: ONNX, labels, a picture to warm up with, a card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from crossfade.serving.repository.lineage import FILE, Card, Origin, Parity
from crossfade.training.arr_coc import export
from crossfade.training.arr_coc.compare import TOKEN_RECALL_AIM, careful_threshold
from crossfade.training.arr_coc.evaluate import score
from crossfade.training.arr_coc.queries import ANY
from crossfade.training.arr_coc.run import Trained
from crossfade.training.detection.records import SPLITS, DetectionSet
from crossfade.training.lineage import facts

TASK: Final = "arr-coc"
MODEL: Final = "model.onnx"
_WARM: Final = "warm"
WriteModel = Callable[[Trained, Mapping[str, float], Path], Parity]


def thresholds(trained: Trained) -> dict[str, float]:
    """Returns the relevance that reaches the served recall, by label and for "any".

    They are those of the validation split, chosen with care.
    """
    _, _, known = score(trained, "validation")
    out = {}
    for number, query in enumerate(trained.language.queries):
        if query.place == 0:
            label = (*trained.language.labels, ANY)[query.kind]
            logit = careful_threshold(
                known.logits[:, number], known.truth[:, number], TOKEN_RECALL_AIM
            )
            out[label] = float(torch.tensor(logit).sigmoid())
    return out


def write(
    folder: Path,
    trained: Trained,
    metrics: Mapping[str, float],
    write_model: WriteModel = export.write,
) -> Card:
    """Fills a version's folder; ``write_model`` writes the ONNX file and proves it.

    Raises:
        FailedPrecondition: the model cannot be written, or the file answers otherwise.
    """
    proof = write_model(trained, thresholds(trained), folder / MODEL)
    shutil.copyfile(warm_picture(trained.data), folder / warm_name(trained.data))
    counts: dict[str, int] = {split: len(trained.data.of(split)) for split in SPLITS}
    card = Card(
        task=TASK,
        created=facts.now(),
        seed=trained.config.seed,
        data=Origin(name="detection set", sha256=trained.data_sha256, counts=counts),
        config=trained.config.model_dump(mode="json"),
        metrics=dict(metrics),
        export=trained.export,
        parity=proof,
        environment=facts.environment(torch.device("cpu")),
        revision=facts.revision(Path.cwd()),
        files=facts.digests(folder),
    )
    (folder / FILE).write_text(card.text(), "utf-8")
    return card


def model_yaml(trained: Trained) -> dict[str, Any]:
    """Returns what ``model.yaml`` must say so that clients send picture files and text."""
    query = trained.language.phrases(trained.language.queries[0])[0]
    inputs = {
        "image_bytes": [{"file": warm_name(trained.data)}],
        "query": [[query]],
        "token_budget": [[0]],
    }
    return {
        "platform": "onnx",
        "preprocess": {"input": "image", "name": "image_bytes"},
        "batching": {"max_size": 1},  # rows do not get cheaper together on a CPU
        "warmup": [{"count": 3, "inputs": inputs}],
    }


def maker(
    trained: Trained,
    metrics: Mapping[str, float],
    cards: list[Card],
    write_model: WriteModel = export.write,
) -> Callable[[Path], None]:
    """Returns what ``publish`` calls; the card is appended to ``cards``."""
    return lambda folder: cards.append(write(folder, trained, metrics, write_model))


def warm_picture(data: DetectionSet) -> Path:
    """The picture that a version is warmed up with."""
    return data.of("validation")[0].path


def warm_name(data: DetectionSet) -> str:
    """What it is called in a version's folder."""
    return _WARM + warm_picture(data).suffix.lower()
