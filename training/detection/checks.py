"""Looks for what spoils training silently, before it starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.detection.pictures import open_rgb
from crossfade.training.detection.records import SPLITS, Box, DetectionSet, Picture

_NEAR: Final = 3  # bits of 64 by which two pictures that look the same may differ
_FEW: Final = 5


def checked(data: DetectionSet) -> DetectionSet:
    """Returns the set without its degenerate boxes, with what was found as warnings.

    Raises:
        InvalidArgument: a picture cannot be read, a split or a class is empty, or the same
            picture is in two splits.
    """
    warnings: list[str] = []
    pictures = tuple(_clean(picture, warnings) for picture in data.pictures)
    empty = [split for split in SPLITS if not any(p.split == split for p in pictures)]
    if empty:
        raise InvalidArgument(f"no picture in the {empty[0]} split; --split-seed draws splits")
    for split in SPLITS:
        counts = dict.fromkeys(data.labels, 0)
        for picture in pictures:
            for box in picture.boxes:
                counts[box.label] += picture.split == split
        for label, count in counts.items():
            if not count:
                raise InvalidArgument(f"class '{label}' has no box in the {split} split")
            if count < _FEW:
                warnings.append(f"class '{label}' has only {count} boxes in the {split} split")
    warnings += _leaks(pictures)
    return dataclasses.replace(data, pictures=pictures, warnings=(*data.warnings, *warnings))


def _clean(picture: Picture, warnings: list[str]) -> Picture:
    kept = []
    for box in picture.boxes:
        edges = np.array([box.x_min, box.y_min, box.x_max, box.y_max])
        if not np.isfinite(edges).all():
            raise InvalidArgument(f"'{picture.path.name}': a coordinate is not a finite number")
        inside = Box(box.label, *np.clip(edges, 0.0, 1.0).tolist())
        if np.abs(edges - np.clip(edges, 0.0, 1.0)).max() > 0.01:
            warnings.append(f"'{picture.path.name}': a box of '{box.label}' was cut at the edge")
        if inside.area > 0:
            kept.append(inside)
        else:
            warnings.append(f"'{picture.path.name}': a box of '{box.label}' without area left out")
    return dataclasses.replace(picture, boxes=tuple(kept))


def _leaks(pictures: tuple[Picture, ...]) -> list[str]:
    """Warns of look-alikes in different splits; equal pixels are an error."""
    hashes = np.array([_difference_hash(picture.path) for picture in pictures])  # [n, 64] bool
    warnings = []
    for index in range(1, len(pictures)):
        distances = (hashes[:index] != hashes[index]).sum(axis=1)
        for other in np.flatnonzero(distances <= _NEAR):
            one, two = pictures[other], pictures[index]
            if one.split == two.split or None in (one.split, two.split):
                continue
            pair = f"'{one.path.name}' ({one.split}) and '{two.path.name}' ({two.split})"
            if one.path.read_bytes() == two.path.read_bytes():
                raise InvalidArgument(f"{pair} are the same file: the splits leak")
            warnings.append(f"{pair} look alike")
    return warnings


def _difference_hash(path: Path) -> np.ndarray:
    with open_rgb(path) as image:
        small = image.convert("L").resize((9, 8), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.int16)
    return np.asarray((grey[:, 1:] > grey[:, :-1]).reshape(-1))
