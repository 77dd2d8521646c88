"""Wrong labels, by models that have not seen them.

Two numbers. *Confident learning* (Northcutt, Jiang, Chuang 2021) counts rows that the model takes
for another class at least as surely as it takes that class's own rows, and names them for review.
It cannot tell a wrong label from classes that overlap. So the verdict takes another: the share of
rows that disagree with the model, carried on to *where it is surest*. Overlap fades there, and
wrong labels are as frequent as anywhere. Labels play no part in the choice of these rows.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.training.intervals import Interval, wilson

Array = npt.NDArray[Any]
_ROBUST: Final = 1.4826
_GROSS: Final = 6.0
_Z: Final = 1.96
_FEWEST: Final = 20


@dataclasses.dataclass(frozen=True, slots=True)
class LabelNoise:
    """What was found.

    Attributes:
        surest: the share of wrong labels where the model is surest.
        estimate: the share of all rows, by confident learning; of a regression, of gross errors.
        joint: of given (rows) and likely (columns) classes, shares that add up to 1.
        rows: the most suspicious first.
    """

    surest: Interval | None
    estimate: Interval
    joint: Array | None
    rows: Array


def classification(target: Array, probabilities: Array, surest: float) -> LabelNoise:
    """See the module.

    Args:
        target: class places [rows].
        probabilities: out of fold, [rows, classes].
        surest: the share of rows that are looked at for that; of each predicted class.
    """
    rows, classes = probabilities.shape
    counts = np.bincount(target, minlength=classes)
    own = probabilities[np.arange(rows), target]
    thresholds = np.array(
        [own[target == c].mean() if counts[c] else np.inf for c in range(classes)]
    )
    above = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely = above.argmax(axis=1)
    confident = above.max(axis=1) >= 0
    joint = np.zeros((classes, classes))
    np.add.at(joint, (target[confident], likely[confident]), 1)
    # Rows of the table are brought to the frequencies of the given classes.
    sums = joint.sum(axis=1, keepdims=True)
    share = np.where(sums > 0, joint / np.maximum(sums, 1), np.eye(classes))
    joint = share * counts[:, None] / rows
    wrong = 1 - float(np.trace(joint))
    estimate = wilson(round(wrong * rows), rows)
    suspicious = np.flatnonzero(confident & (likely != target))
    margin = probabilities.max(axis=1) - own
    ordered = suspicious[np.argsort(-margin[suspicious], kind="stable")]
    return LabelNoise(_surest(target, probabilities, surest), estimate, joint, ordered)


def _surest(target: Array, probabilities: Array, share: float) -> Interval | None:
    """The share of wrong labels, carried on to where the model would be quite sure.

    Of each predicted class, so that an easy one does not hide the others, the surest rows are
    ranked; a straight line through "label differs" over the rank says what is left at rank 0.
    """
    predicted, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    ranks: list[Array] = []
    wrong: list[Array] = []
    for c in np.unique(predicted):
        members = np.flatnonzero(predicted == c)
        count = max(1, round(share * len(members)))
        best = members[np.argsort(-top[members], kind="stable")[:count]]
        ranks.append((np.arange(count) + 0.5) / count)
        wrong.append(target[best] != c)
    rank, differs = np.concatenate(ranks), np.concatenate(wrong).astype(np.float64)
    if len(rank) < _FEWEST:
        return None
    design = np.stack([np.ones(len(rank)), rank], axis=1)
    inverse = np.linalg.pinv(design.T @ design)
    line = inverse @ design.T @ differs
    spread = design * (differs - design @ line)[:, None]
    deviation = math.sqrt((inverse @ spread.T @ spread @ inverse)[0, 0])
    ends = (float(line[0]), float(line[0]) - _Z * deviation, float(line[0]) + _Z * deviation)
    return Interval(*(min(1.0, max(0.0, end)) for end in ends))


def regression(target: Array, predictions: Array) -> LabelNoise:
    """Targets further from the prediction than six robust deviations of all.

    Args:
        target: float64 [rows].
        predictions: out of fold, [rows, 1].
    """
    error = predictions[:, 0] - target
    centred = np.abs(error - np.median(error))
    deviation = _ROBUST * float(np.median(centred))
    gross = np.flatnonzero(centred > _GROSS * deviation) if deviation else np.array([], np.int64)
    ordered = gross[np.argsort(-centred[gross], kind="stable")]
    return LabelNoise(None, wilson(len(gross), len(target)), None, ordered)
