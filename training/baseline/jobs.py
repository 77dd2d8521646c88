"""The interface that a baseline has, wherever it is trained: that of Vertex AI's AutoML jobs.

Argument names are those of ``google.cloud.aiplatform.AutoMLTabularTrainingJob`` and
``AutoMLImageTrainingJob``, so that one script runs here and there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.baseline.metrics import Evaluation


class ParityFailed(FailedPrecondition):
    """The exported graph does not answer as the trained model does; nothing was written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        doing: in a few words.
        done: the share of the budget that is used, 0..1.
        best: the best value of the objective so far, if there is one.
    """

    doing: str
    done: float
    best: float | None = None


Report = Callable[[Progress], None]


class TrainedModel(Protocol):
    """What ``run`` gives."""

    @property
    def display_name(self) -> str:
        """The name that it was given."""

    def evaluate(self) -> Evaluation | Mapping[str, Any]:
        """Metrics of the test split, which nothing was chosen by."""

    def export(self, folder: str | Path) -> Mapping[str, Any]:
        """Writes the model's files; returns what ``model.yaml`` should say of them.

        Raises:
            ParityFailed: the files would answer otherwise.
        """


class TrainingJob(Protocol):
    """A training that has been described and not yet run."""

    def run(
        self,
        dataset: Any,
        target_column: str,
        *,
        training_fraction_split: float = 0.8,
        validation_fraction_split: float = 0.1,
        test_fraction_split: float = 0.1,
        predefined_split_column_name: str | None = None,
        budget_milli_node_hours: int = 1000,
        model_display_name: str | None = None,
    ) -> TrainedModel:
        """Trains.

        Args:
            dataset: a table, or where its CSV file is.
            target_column: what is to be predicted.
            training_fraction_split: of the rows; where a job cross-validates, these and those for
                validation are one.
            validation_fraction_split: of the rows.
            test_fraction_split: of the rows; only ``evaluate`` sees them.
            predefined_split_column_name: a column of TRAIN, VALIDATE and TEST, in place of shares.
            budget_milli_node_hours: how long it may take, in thousandths of an hour of one machine.
            model_display_name: what to call the model.
        """
