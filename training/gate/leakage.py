"""One column that says the target alone: hardly ever a discovery, nearly always a leak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from crossfade.training.gate.study import Study
from crossfade.training.intervals import Interval, bootstrap


@dataclasses.dataclass(frozen=True, slots=True)
class SingleColumn:
    """How well one column does alone.

    Attributes:
        score: the area under the curve, or R², out of fold; with an interval where it is near the
            threshold, and none else.
        leaks: whether the lower end is above the threshold.
    """

    column: str
    score: Interval
    leaks: bool


def single_columns(
    study: Study, threshold: float, told: Callable[[int, int], None]
) -> Sequence[SingleColumn]:
    """Each column alone, the best first.

    Args:
        study: the rows.
        threshold: of the lower end.
        told: how many of how many columns are done.
    """
    found = []
    for place, column in enumerate(study.columns):
        predictions = study.alone(column)
        value = study.score(predictions)
        score = Interval(value, value, value)
        if value >= threshold:
            score = bootstrap(
                lambda rows, p=predictions: study.score(p, rows),  # type: ignore[misc]
                len(study.target),
                resamples=200,
                seed=study.seed,
            )
        found.append(SingleColumn(column.name, score, score.low >= threshold))
        told(place + 1, len(study.columns))
    return sorted(found, key=lambda each: -each.score.value)
