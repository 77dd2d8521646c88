"""Boxes as [ymin, xmin, ymax, xmax], however a model writes them. Pure."""

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
