"""Trials out of cards: only of values that a run really had."""

from __future__ import annotations

from typing import Any

import pytest

from crossfade.serving.repository.lineage import Card, Origin
from crossfade.training.tuning.priors import of_cards
from crossfade.training.tuning.space import Number, Space

SPACE = Space({"optimisation.learning_rate": Number(1e-4, 0.1, log=True), "epochs": Number(1, 50)})


def card(config: dict[str, Any], **metrics: float) -> Card:
    return Card(
        task="t",
        created="now",
        seed=0,
        data=Origin(name="d", sha256="0" * 64),
        config=config,
        metrics=metrics,
        environment={},
        files={},
    )


def test_only_complete_records_are_trials() -> None:
    cards = [
        card({"optimisation": {"learning_rate": 0.01, "clip_norm": 1.0}, "epochs": 5}, acc=0.9),
        card({"optimisation": {"learning_rate": 0.5}, "epochs": 5}, acc=0.8),
        card({"epochs": 5}, acc=0.7),
        card({"optimisation": {"learning_rate": 0.02}, "epochs": 6}, loss=1.0),
    ]
    trials, adopted = of_cards(cards, SPACE, "acc", larger_is_better=True)
    (trial,) = trials
    assert trial.values == {"optimisation.learning_rate": 0.01, "epochs": 5}
    assert trial.loss == -0.9
    said = [found.provenance["optimisation.learning_rate"] for found in adopted]
    assert said == ["given", "clipped", "missing", "given"]


def test_other_names() -> None:
    old = card({"learningRate": 0.01, "epochs": 5}, loss=0.5)
    assert of_cards([old], SPACE, "loss")[0] == []
    rename = {"learningRate": "optimisation.learning_rate"}
    (trial,) = of_cards([old], SPACE, "loss", rename=rename)[0]
    assert trial.values["optimisation.learning_rate"] == pytest.approx(0.01)
