"""Boxes of several detectors as one list: weighted box fusion, or suppression of the weaker ones.

Boxes are [ymin, xmin, ymax, xmax] in 0 .. 1. Classes are places in the ensemble's labels
(``LabelAlignment.classes``), so that only boxes of one label meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.scores import Floats
from crossfade.runtimes.core.errors import Internal
from crossfade.runtimes.core.model import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one picture.

    Attributes:
        boxes: [n, 4] float32.
        scores: [n] float32.
        classes: [n] places in the ensemble's labels.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.intp]

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,) or self.classes.shape != (n,):
            raise Internal("boxes [n, 4], scores [n] and classes [n] do not fit together")
        if not (np.all(np.isfinite(self.boxes)) and np.all(np.isfinite(self.scores))):
            raise Internal("a detector's boxes or scores are not finite")


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union [..., n, m] of [..., n, 4] and [..., m, 4]; 0 without an area."""
    a, b = boxes[..., :, None, :], others[..., None, :, :]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    union = _area(a) + _area(b) - shared
    ratio: Tensor = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def surest(
    boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float, most: int
) -> npt.NDArray[np.intp]:
    """Non-maximum suppression: the best box stays, those that overlap it by more go, and so on.

    Args:
        boxes: [n, 4].
        scores: [n].
        classes: [n]; boxes of different classes do not count as overlapping. ``None``: they do.
        iou_threshold: 0 to 1.
        most: boxes that stay at most.

    Returns:
        Indexes of those that stay, the best first; of equal scores the first.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while left.size and len(kept) < most:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        gone = overlap(boxes[best][None], boxes[left])[0] > iou_threshold
        if classes is not None:
            gone &= classes[left] == classes[best]
        left = left[~gone]
    return np.array(kept, np.intp)


def fuse(
    members: Sequence[Detections], weights: Sequence[float], *, iou_threshold: float = 0.55
) -> Detections:
    """Weighted box fusion (Solovyev et al., 2021).

    The boxes, surest first, join the fused box of their label that they overlap most, if by more
    than the threshold, or found a new one. A fused box is the mean of its boxes by score and
    weight. Its score is the weighted mean over all members of the best score that each gave it:
    one that does not see the object counts as zero, so that agreement shows in the score.

    Args:
        members: one for each detector.
        weights: one for each detector, not negative, with a positive sum.
        iou_threshold: 0 to 1.

    Returns:
        The best first; of equal scores in the order of founding.
    """
    joined, scores, member_of = _joined(members, weights)
    order = np.argsort(-scores, kind="stable")
    n = len(order)
    moments, mass, means = np.zeros((n, 4)), np.zeros(n), np.zeros((n, 4))
    founded, seen = np.full(n, -1, np.intp), np.zeros((n, len(members)))
    used = 0
    for box, label, score, member in zip(
        joined.boxes[order].astype(np.float64),
        joined.classes[order],
        scores[order],
        member_of[order],
        strict=True,
    ):
        match = overlap(box[None], means[:used])[0] * (founded[:used] == label)
        best = int(match.argmax()) if used else 0
        if not used or match[best] <= iou_threshold:
            best, used = used, used + 1
            founded[best] = label
        moments[best] += box * score
        mass[best] += score
        seen[best, member] = max(seen[best, member], score)
        means[best] = moments[best] / mass[best]
    fused = seen[:used].sum(axis=1) / sum(weights)
    best_first = np.argsort(-fused, kind="stable")
    return Detections(
        means[best_first].astype(np.float32),
        fused[best_first].astype(np.float32),
        founded[best_first],
    )


def suppress(
    members: Sequence[Detections], weights: Sequence[float], *, iou_threshold: float = 0.5
) -> Detections:
    """Non-maximum suppression over all members' boxes: the surest of those that overlap stays.

    Scores are compared, and returned, times the member's weight by the largest weight.

    Args and order of the answer: as of ``fuse``.
    """
    joined, scores, _ = _joined(members, weights)
    scaled: Floats = (scores / max(weights)).astype(np.float32)
    index = surest(joined.boxes, scaled, joined.classes, iou_threshold, len(scaled))
    return Detections(joined.boxes[index], scaled[index], joined.classes[index])


def _joined(
    members: Sequence[Detections], weights: Sequence[float]
) -> tuple[Detections, npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """All boxes with a positive weighted score, those scores, and whose they are."""
    boxes = np.clip(np.concatenate([member.boxes for member in members]), 0, 1)
    plain: Floats = np.concatenate([member.scores for member in members])
    classes = np.concatenate([member.classes for member in members])
    member_of = np.repeat(np.arange(len(members)), [len(member.scores) for member in members])
    scores = plain * np.array(weights, np.float64)[member_of]
    on = scores > 0
    return Detections(boxes[on], plain[on], classes[on]), scores[on], member_of[on]


def _area(boxes: Tensor) -> Tensor:
    area: Tensor = np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
    return area
