"""Boxes as [ymin, xmin, ymax, xmax], and the best of those that overlap. Pure."""

from __future__ import annotations

from typing import Literal

import numpy as np

from crossfade.runtimes.core.model import Tensor

BoxFormat = Literal["yxyx", "xyxy", "cxcywh"]


def to_yxyx(boxes: Tensor, written: BoxFormat) -> Tensor:
    """FP32 [n, 4] boxes in the one format that leaves the server.

    Args:
        boxes: [n, 4].
        written: ``xyxy`` is [xmin, ymin, xmax, ymax], ``cxcywh`` the middle and the size.
    """
    boxes = boxes.astype(np.float32)
    if written == "xyxy":
        return boxes[:, [1, 0, 3, 2]]
    if written == "cxcywh":
        middle, half = boxes[:, 1::-1], boxes[:, :1:-1] / 2
        return np.concatenate([middle - half, middle + half], axis=1)
    return boxes


def overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box [4] with [n, 4]; 0 where neither has an area."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = _area(box[None]) + _area(others) - shared
    ratio: Tensor = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def _area(boxes: Tensor) -> Tensor:
    area: Tensor = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    return area


def non_maximum_suppression(
    boxes: Tensor, scores: Tensor, classes: Tensor | None, iou_threshold: float, most: int
) -> Tensor:
    """Greedy: the best box stays, those that overlap it by more go, and so on.

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
        first, left = int(left[0]), left[1:]
        kept.append(first)
        gone = overlap(boxes[first], boxes[left]) > iou_threshold
        if classes is not None:
            gone &= classes[left] == classes[first]
        left = left[~gone]
    return np.array(kept, np.intp)
