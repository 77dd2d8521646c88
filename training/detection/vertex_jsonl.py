"""Reads Vertex AI's JSON Lines import file for bounding boxes.

https://cloud.google.com/vertex-ai/docs/image-data/object-detection/prepare-data
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.detection.locating import locate
from crossfade.training.detection.records import SPLITS, Box, DetectionSet, Picture, Split, make

_USE: Final = "aiplatform.googleapis.com/ml_use"


def read(file: Path, images: Path | None = None) -> DetectionSet:
    """Reads an import file; arguments and errors as ``vertex_csv.read``."""
    pictures: dict[Path, Picture] = {}
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{file.name} is not UTF-8: {error.reason}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            picture = _picture(json.loads(line), images or file.parent, where)
        except (json.JSONDecodeError, RecursionError):
            raise InvalidArgument(f"{where}: not JSON") from None
        except KeyError as error:
            raise InvalidArgument(f"{where}: {error} is missing") from None
        except (TypeError, ValueError, AttributeError):
            raise InvalidArgument(f"{where}: a value is of the wrong type") from None
        if picture.path in pictures:
            raise InvalidArgument(f"{where}: '{picture.path.name}' is there twice")
        pictures[picture.path] = picture
    if not pictures:
        raise InvalidArgument(f"{file.name} names no picture")
    return make(tuple(pictures.values()))


def _picture(line: dict[str, Any], images: Path, where: str) -> Picture:
    use = line.get("dataItemResourceLabels", {}).get(_USE)
    split: Split | None = next((s for s in SPLITS if s == use), None)
    if split is None and use not in (None, "unassigned"):
        raise InvalidArgument(f"{where}: ml_use is one of {', '.join(SPLITS)}, not '{use}'")
    boxes = tuple(_box(box) for box in line.get("boundingBoxAnnotations", ()))
    return Picture(locate(str(line["imageGcsUri"]), images, where), boxes, split)


def _box(box: dict[str, Any]) -> Box:
    edges = (float(box[edge]) for edge in ("xMin", "yMin", "xMax", "yMax"))
    return Box(str(box["displayName"]), *edges)
