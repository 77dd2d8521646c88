"""Reads Vertex AI's CSV import file for bounding boxes.

A line is ``[ML_USE,]URI,LABEL,x_min,y_min,,,x_max,y_max,,`` (two vertices) or has all four
vertices; a line with nothing after the URI is a picture without boxes.
https://cloud.google.com/vertex-ai/docs/image-data/object-detection/prepare-data
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.detection.locating import locate
from crossfade.training.detection.records import Box, DetectionSet, Picture, Split, make

_USES: Final[dict[str, Split | None]] = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "validate": "validation",
    "test": "test",
    "unassigned": None,
}


def read(file: Path, images: Path | None = None) -> DetectionSet:
    """Reads an import file.

    Args:
        file: the CSV file.
        images: the local folder that the bucket's pictures are in; that of ``file`` by default.

    Raises:
        InvalidArgument: a line is not what the format says; the line is named.
    """
    boxes: dict[Path, list[Box]] = {}
    splits: dict[Path, Split | None] = {}
    with file.open(newline="", encoding="utf-8-sig") as lines:
        try:
            for number, row in enumerate(csv.reader(lines, strict=True), 1):
                cells = [cell.strip() for cell in row]
                if any(cells):
                    _add(cells, f"{file.name}, line {number}", images or file.parent, boxes, splits)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{file.name} is not a CSV file: {error}") from None
    if not boxes:
        raise InvalidArgument(f"{file.name} names no picture")
    return make(tuple(Picture(path, tuple(found), splits[path]) for path, found in boxes.items()))


def _add(
    cells: list[str],
    where: str,
    images: Path,
    boxes: dict[Path, list[Box]],
    splits: dict[Path, Split | None],
) -> None:
    split: Split | None = None
    if cells[0].lower() in _USES:
        split = _USES[cells[0].lower()]
        cells = cells[1:]
    if not cells or not cells[0]:
        raise InvalidArgument(f"{where}: no picture is named")
    path = locate(cells[0], images, where)
    if splits.setdefault(path, split) != split:
        raise InvalidArgument(f"{where}: '{path.name}' is in two splits")
    found = boxes.setdefault(path, [])
    rest = cells[1:]
    if not any(rest):
        return
    if len(rest) != 9:
        raise InvalidArgument(
            f"{where}: {len(rest)} columns after the picture; a label and 8 coordinates are 9"
        )
    found.append(_box(rest[0], rest[1:], where))


def _box(label: str, cells: list[str], where: str) -> Box:
    if not label:
        raise InvalidArgument(f"{where}: a box without a label")
    try:
        values = [float(cell) for cell in cells if cell]
    except ValueError:
        raise InvalidArgument(f"{where}: a coordinate is not a number") from None
    pairs = [bool(cell) for cell in cells]
    if pairs not in ([True] * 8, [True, True, False, False, True, True, False, False]):
        raise InvalidArgument(f"{where}: give two opposite vertices (x,y,,,x,y,,) or all four")
    xs, ys = values[::2], values[1::2]
    return Box(label, min(xs), min(ys), max(xs), max(ys))
