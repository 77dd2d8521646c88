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
from crossfade.training.arr_coc.run import Run, Trained
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
    config = trained.config.model_dump(mode="json")
    return finish(folder, trained, task=TASK, config=config, metrics=metrics, parity=proof)


def finish(
    folder: Path,
    made: Trained | Run,
    *,
    task: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, float],
    parity: Parity,
) -> Card:
    """Puts the picture to warm up with beside a model that was written, and its card."""
    shutil.copyfile(warm_picture(made.data), folder / warm_name(made.data))
    counts: dict[str, int] = {split: len(made.data.of(split)) for split in SPLITS}
    card = Card(
        task=task,
        created=facts.now(),
        seed=made.config.seed,
        data=Origin(name="detection set", sha256=made.data_sha256, counts=counts),
        export=made.export,
        config=config,
        metrics=dict(metrics),
        parity=parity,
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
