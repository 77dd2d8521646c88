"""What a model is worth on rows that it has not seen, each number with its interval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from crossfade.training import intervals
from crossfade.training.intervals import Interval

Array = npt.NDArray[Any]
Task = Literal["regression", "classification"]
_FLOOR: Final = 1e-15


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of a split.

    Attributes:
        task: what was learned.
        rows: how many were scored.
        metrics: by AutoML's names: ``rootMeanSquaredError``, ``meanAbsoluteError``, ``rSquared``;
            ``accuracy``, ``majorityAccuracy``, ``logLoss``, ``auRoc``, ``auPrc``.
    """

    task: Task
    rows: int
    metrics: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        metrics = {name: interval.to_dict() for name, interval in self.metrics.items()}
        return {"task": self.task, "rows": self.rows, "metrics": metrics}


def regression(wanted: Array, found: Array) -> Evaluation:
    """Of float64 [rows] each."""
    error = found - wanted
    spread = ((wanted - wanted.mean()) ** 2).mean()

    def rmse(rows: Array) -> float:
        return float(np.sqrt((error[rows] ** 2).mean()))

    def r_squared(rows: Array) -> float:
        held = wanted[rows]
        variance = ((held - held.mean()) ** 2).mean()
        return float(1 - (error[rows] ** 2).mean() / variance) if variance else float("nan")

    metrics = {
        "rootMeanSquaredError": intervals.bootstrap(rmse, len(wanted)),
        "meanAbsoluteError": intervals.mean(np.abs(error)),
    }
    if spread:
        metrics["rSquared"] = intervals.bootstrap(r_squared, len(wanted))
    return Evaluation("regression", len(wanted), metrics)


def classification(wanted: Array, scores: Array) -> Evaluation:
    """Of class places, int64 [rows], and probabilities [rows, classes].

    ``majorityAccuracy`` is what the most frequent class of these rows alone would reach; the areas
    are those of each class against the others, their mean over the classes that occur.
    """
    rows = len(wanted)
    right = scores.argmax(axis=1) == wanted
    most = int(np.bincount(wanted).max())
    loss = -np.log(np.maximum(scores[np.arange(rows), wanted], _FLOOR))
    metrics = {
        "accuracy": intervals.wilson(int(right.sum()), rows),
        "majorityAccuracy": intervals.wilson(most, rows),
        "logLoss": intervals.mean(loss),
    }
    classes: Sequence[int] = [int(c) for c in np.unique(wanted)]
    if len(classes) > 1:
        from sklearn.metrics import average_precision_score, roc_auc_score

        # With two classes one curve says all; that of the second, as is usual.
        of = [classes[-1]] if scores.shape[1] == 2 else classes

        def area(score: Any, places: Array) -> float:
            held = wanted[places]
            if any(not 0 < int((held == c).sum()) < len(held) for c in of):
                return float("nan")
            return float(np.mean([score(held == c, scores[places, c]) for c in of]))

        for name, score in (("auRoc", roc_auc_score), ("auPrc", average_precision_score)):
            metrics[name] = intervals.bootstrap(functools.partial(area, score), rows, resamples=100)
    return Evaluation("classification", rows, metrics)
