"""Decoded pictures of one split, in memory, with what is marked in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from crossfade.training.arr_coc.geometry import INPUT_HEIGHT, INPUT_WIDTH, edges, relevant
from crossfade.training.detection.pictures import decode
from crossfade.training.detection.records import Picture


@dataclasses.dataclass(frozen=True, slots=True)
class Pictures:
    """``n`` pictures of a split.

    Attributes:
        records: where they came from.
        pixels: UINT8 ``[n, INPUT_HEIGHT, INPUT_WIDTH, 3]``.
        boxes: FP64 ``[boxes, 4]`` of each picture, fractions.
        classes: the boxes' class numbers.
        n_classes: how many classes the set has.
    """

    records: tuple[Picture, ...]
    pixels: np.ndarray
    boxes: tuple[np.ndarray, ...]
    classes: tuple[np.ndarray, ...]
    n_classes: int

    @classmethod
    def load(cls, records: Sequence[Picture], labels: Sequence[str]) -> Pictures:
        """Decodes the pictures; raises as ``decode``."""
        number = {label: index for index, label in enumerate(labels)}
        return cls(
            tuple(records),
            decode([picture.path for picture in records], INPUT_HEIGHT, INPUT_WIDTH),
            tuple(edges(picture.boxes) for picture in records),
            tuple(np.array([number[b.label] for b in p.boxes], dtype=int) for p in records),
            len(labels),
        )

    def relevance(self) -> np.ndarray:
        """Returns BOOL ``[n, n_classes + 1, places, GH, GW]``."""
        rows = zip(self.boxes, self.classes, strict=True)
        return np.stack([relevant(boxes, kinds, self.n_classes) for boxes, kinds in rows])

    def batches(self, size: int = 16) -> Iterator[Tensor]:
        """Yields FP32 ``[<= size, 3, INPUT_HEIGHT, INPUT_WIDTH]``, 0 to 255, in order."""
        for start in range(0, len(self.pixels), size):
            yield to_tensor(self.pixels[start : start + size])


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Makes UINT8 ``[n, height, width, 3]`` FP32 ``[n, 3, height, width]``, channels last."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
