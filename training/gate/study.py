"""Quick cross-validated models, which all statistics of the gate are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.extras import require
from crossfade.training.baseline.members import linked
from crossfade.training.baseline.metrics import Task
from crossfade.training.baseline.search import Problem, loss
from crossfade.training.transforms import fitting
from crossfade.training.transforms.errors import InvalidSpec
from crossfade.training.transforms.evaluate import transform
from crossfade.training.transforms.fitting import Options
from crossfade.training.transforms.plan import PlannedColumn
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]
ROUNDS: Final = 120
_ALONE_ROUNDS: Final = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
    """Rows to be studied.

    Attributes:
        task: regression or classification.
        table: features.
        columns: what they are.
        target: float64 [rows], or class places.
        classes: words of the classes; none of a regression.
        seed: of folds and of all that is drawn.
    """

    task: Task
    table: Table
    columns: Sequence[PlannedColumn]
    target: Array
    classes: Sequence[str]
    seed: int

    @property
    def problem(self) -> Problem:
        """The same for the baseline's functions."""
        objective = "rmse" if self.task == "regression" else "log_loss"
        return Problem(
            self.task,
            objective,
            self.table,
            self.columns,
            self.target,
            len(self.classes),
            self.seed,
        )

    def out_of_fold(self, columns: Sequence[PlannedColumn], rounds: int = ROUNDS) -> Array:
        """Predictions of rows by models that have not seen them.

        Everything is fitted in each fold alone: vocabularies and target encodings, too.

        Returns:
            Values [rows, 1], or probabilities [rows, classes].
        """
        problem = self.problem
        found = np.empty((len(self.target), max(1, len(self.classes))))
        encoded = problem.encoded
        for learned, held in problem.folds():
            train, test = self.table.rows(learned), self.table.rows(held)
            try:
                spec, dense, _ = fitting.fit_transform(
                    train, columns, encoded[learned], Options(style="trees"), seed=self.seed
                )
            except InvalidSpec:  # nothing differs: the best guess is the same for all
                found[held] = self._guess(learned)
                continue
            booster = boost(self, dense.astype(np.float64), self.target[learned], rounds)
            features = transform(spec, test)[0].astype(np.float64)
            raw = booster.predict(features, raw_score=True, num_threads=1)
            found[held] = linked(self.task, np.asarray(raw).reshape(len(held), -1))
        return found

    def alone(self, column: PlannedColumn) -> Array:
        """Predictions out of fold from one column."""
        return self.out_of_fold([column], _ALONE_ROUNDS)

    def score(self, predictions: Array, rows: Array | None = None) -> float:
        """The area under the curve, the mean over classes; or R²."""
        if rows is None:
            rows = np.arange(len(self.target))
        target, found = self.target[rows], predictions[rows]
        if self.task == "classification":
            if len(np.unique(target)) < 2:
                return float("nan")
            return 1 - loss("auc", target, found)
        spread = ((target - target.mean()) ** 2).mean()
        return float(1 - ((found[:, 0] - target) ** 2).mean() / spread) if spread else float("nan")

    def _guess(self, learned: Array) -> Any:
        if self.task == "regression":
            return self.target[learned].mean()
        return np.bincount(self.target[learned], minlength=len(self.classes)) / len(learned)


def boost(study: Study, features: Array, target: Array, rounds: int, seed: int = 0) -> Any:
    """A small LightGBM model with fixed settings."""
    lightgbm = require("lightgbm", "training", "the gate")
    settings: dict[str, Any] = {
        "objective": "l2",
        "learning_rate": 0.08,
        "num_leaves": 15,
        "min_data_in_leaf": 10,
        "lambda_l2": 1.0,
        "seed": study.seed + seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
    if study.task == "classification":
        many = len(study.classes) > 2
        settings["objective"] = "multiclass" if many else "binary"
        if many:
            settings["num_class"] = len(study.classes)
    return lightgbm.train(settings, lightgbm.Dataset(features, target), rounds)
