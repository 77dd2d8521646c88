"""What a detection set is, whatever file it was read from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final, Literal

Split = Literal["training", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("training", "validation", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A labelled box; the edges are fractions of the picture's width and height."""

    label: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def area(self) -> float:
        """The fraction of the picture that it covers; 0 if it is degenerate."""
        return max(0.0, self.x_max - self.x_min) * max(0.0, self.y_max - self.y_min)


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """One image file and what is marked in it; ``split`` is ``None`` where the set says none."""

    path: Path
    boxes: tuple[Box, ...]
    split: Split | None


@dataclasses.dataclass(frozen=True, slots=True)
class DetectionSet:
    """Pictures in the order of their source.

    Attributes:
        labels: the classes, in alphabetical order.
        pictures: every one can be decoded and belongs to a split once ``checks.checked`` is
            through with them.
        warnings: what was left out or looks wrong, one sentence each.
    """

    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]
    warnings: tuple[str, ...] = ()

    def of(self, split: Split) -> tuple[Picture, ...]:
        """Returns the pictures of a split."""
        return tuple(picture for picture in self.pictures if picture.split == split)


def make(pictures: tuple[Picture, ...]) -> DetectionSet:
    """Makes a set whose labels are those of its boxes."""
    labels = sorted({box.label for picture in pictures for box in picture.boxes})
    return DetectionSet(tuple(labels), pictures)
