"""Two members' answers to one request, compared in the terms of the task."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.boxes import overlap
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import InferResponse, InferResult, Tensor

# How far two detectors' boxes of one class must overlap to be the same object, as in COCO's AP50.
SAME_OBJECT: Final = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Boxes:
    """The outputs of a detector: boxes [..., n, 4], scores [..., n], classes [..., n].

    Attributes:
        least_score: boxes below it are not looked at.
    """

    boxes: str
    scores: str
    classes: str
    least_score: float = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """How far two answers are apart; ``None`` where that cannot be said.

    Attributes:
        agreed: whether they are the same answer: the same first class in every row, the same
            objects, else equal values, real ones within a tolerance. ``None`` where one failed.
        agreement: share of the rows, or of all elements, that agree.
        score_difference: the largest difference of two real numbers at the same place.
        overlap: mean intersection over union of the boxes, where one without a partner has 0.
        rank_correlation: Spearman's, of the class scores of a row; the mean over the rows.
    """

    agreed: bool | None = None
    agreement: float | None = None
    score_difference: float | None = None
    overlap: float | None = None
    rank_correlation: float | None = None


FAILED: Final = Comparison()


@dataclasses.dataclass(frozen=True, slots=True)
class Comparer:
    """Compares answers whose outputs have the same names and the same order of labels.

    Attributes:
        classes: outputs with class scores along the last dimension.
        boxes: of a detector; ``None`` is none.
        tolerance: by how much real numbers may differ, relative to the larger one, or absolute
            below one, and still be the same.
    """

    classes: tuple[str, ...] = ()
    boxes: Boxes | None = None
    tolerance: float = 1e-3

    def __call__(self, one: InferResult, other: InferResult) -> Comparison:
        """Compares two results; a failure agrees with nothing."""
        if isinstance(one, CrossfadeError) or isinstance(other, CrossfadeError):
            return FAILED
        pairs = {
            name: (array, other.outputs[name])
            for name, array in one.outputs.items()
            if name in other.outputs
        }
        difference = _largest_difference(list(pairs.values()))
        if self.boxes is not None and {self.boxes.boxes, self.boxes.scores} <= pairs.keys():
            same, mean = _compare_boxes(self.boxes, one, other)
            return Comparison(same == 1.0, same, difference, mean)
        scored = [pairs[name] for name in self.classes if name in pairs]
        if scored and all(_are_scores(*pair) for pair in scored):
            firsts = [(a.argmax(axis=-1) == b.argmax(axis=-1)).ravel() for a, b in scored]
            shares = np.concatenate(firsts)
            return Comparison(
                bool(shares.all()),
                float(shares.mean()),
                difference,
                rank_correlation=_rank_correlation(scored),
            )
        equal = [self._equal(a, b) for a, b in pairs.values()]
        share = float(np.mean(np.concatenate(equal))) if equal else 0.0
        return Comparison(share == 1.0, share, difference)

    def _equal(self, one: Tensor, other: Tensor) -> npt.NDArray[np.bool_]:
        if one.shape != other.shape:
            return np.zeros(1, np.bool_)
        if _real(one) and _real(other):
            a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
            limit = self.tolerance * np.maximum(1, np.maximum(np.abs(a), np.abs(b)))
            with np.errstate(invalid="ignore"):
                near = np.abs(a - b) <= limit
            return np.asarray(near | (a == b) | (np.isnan(a) & np.isnan(b)))
        return np.asarray(one.ravel() == other.ravel(), np.bool_)


def _real(array: Tensor) -> bool:
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def _are_scores(one: Tensor, other: Tensor) -> bool:
    numbers = "O" not in (one.dtype.kind, other.dtype.kind)
    return bool(numbers and one.shape == other.shape and one.ndim and one.size)


def _largest_difference(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """``None`` where there are no real numbers to compare, or one is not finite."""
    found: list[float] = []
    for a, b in pairs:
        if _real(a) and _real(b) and a.shape == b.shape and a.size:
            with np.errstate(invalid="ignore"):
                found.append(float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))))
    return max(found) if found and np.all(np.isfinite(found)) else None


def _rank_correlation(scored: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """The mean over all rows with three classes or more whose scores are not all the same."""
    found: list[float] = []
    for a, b in scored:
        if a.shape[-1] < 3:
            continue
        ranks = [_ranks(x.reshape(-1, x.shape[-1])) for x in (a, b)]
        centred = [r - r.mean(axis=-1, keepdims=True) for r in ranks]
        norms = np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
        on = norms > 0
        found += ((centred[0] * centred[1]).sum(axis=-1)[on] / norms[on]).tolist()
    return float(np.mean(found)) if found else None


def _ranks(rows: Tensor) -> npt.NDArray[np.float64]:
    """Ranks along the last dimension; equal values share the mean of theirs."""
    found: list[npt.NDArray[np.intp]] = []
    for row in rows:
        order = np.sort(row)
        found.append(np.searchsorted(order, row, "left") + np.searchsorted(order, row, "right"))
    return np.asarray(found, np.float64) / 2


def _compare_boxes(names: Boxes, one: InferResponse, other: InferResponse) -> tuple[float, float]:
    """The share of the objects that both see, and the mean overlap, over all pictures."""
    overlaps: list[float] = []
    for first, second in zip(_pictures(names, one), _pictures(names, other), strict=False):
        overlaps += _matched(first, second)
    if not overlaps:
        return 1.0, 1.0
    found = np.array(overlaps)
    return float((found >= SAME_OBJECT).mean()), float(found.mean())


def _pictures(names: Boxes, response: InferResponse) -> list[tuple[Tensor, Tensor]]:
    """Boxes [n, 4], and classes [n], of each picture, the surest first."""
    outputs: Mapping[str, Tensor] = response.outputs
    boxes = outputs[names.boxes].astype(np.float64)
    boxes = boxes.reshape(-1, *boxes.shape[-2:])
    scores = outputs[names.scores].reshape(len(boxes), -1)
    given = outputs.get(names.classes)
    classes = np.zeros(scores.shape) if given is None else given.reshape(len(boxes), -1)
    found: list[tuple[Tensor, Tensor]] = []
    for boxes_of, scores_of, classes_of in zip(boxes, scores, classes, strict=True):
        order = np.argsort(-scores_of.astype(np.float64), kind="stable")
        order = order[scores_of[order] >= names.least_score]
        found.append((boxes_of[order], classes_of[order]))
    return found


def _matched(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> list[float]:
    """Overlaps of partners, the surest box choosing first, and 0 for each without a partner."""
    shared = overlap(first[0], second[0]) * (first[1][:, None] == second[1][None, :])
    free = np.ones(len(second[0]), np.bool_)
    found: list[float] = []
    for row in shared:
        best = int(np.argmax(row * free)) if free.any() else -1
        if best >= 0 and free[best] and row[best] > 0:
            free[best] = False
            found.append(float(row[best]))
        else:
            found.append(0.0)
    return found + [0.0] * int(free.sum())
