"""Opens a detection set in whatever format it lies there, split as asked."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.training.detection import checks, splits, vertex_csv, vertex_jsonl, voc
from crossfade.training.detection.records import DetectionSet


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a set lies and how it is split.

    Attributes:
        path: a VOC folder, or an import file of Vertex AI (``.csv``, ``.jsonl``).
        images: where the pictures of an import file are, if not beside it.
        split_seed: draws a split anew; ``None`` takes the set's own.
        contiguous: splits into blocks of neighbours by name.
    """

    path: Path
    images: Path | None = None
    split_seed: int | None = None
    contiguous: bool = False


def open_set(source: Source) -> DetectionSet:
    """Reads, splits and checks a set.

    Raises:
        NotFound: there is nothing.
        InvalidArgument: it cannot be used; the message names the file, line or class.
    """
    path = source.path
    if not path.exists():
        raise NotFound(f"there is no data at '{path}'")
    if path.is_dir():
        data = voc.read(path)
    elif path.suffix == ".csv":
        data = vertex_csv.read(path, source.images)
    elif path.suffix == ".jsonl":
        data = vertex_jsonl.read(path, source.images)
    else:
        raise InvalidArgument(f"'{path.name}' is neither a VOC folder nor a .csv or .jsonl file")
    if source.contiguous:
        data = splits.contiguous(data)
    elif source.split_seed is not None:
        data = splits.redraw(data, source.split_seed)
    return checks.checked(data)


def digest(data: DetectionSet) -> str:
    """Returns the SHA-256 of pictures, boxes and split."""
    found = hashlib.sha256()
    for picture in data.pictures:
        found.update(hashlib.sha256(picture.path.read_bytes()).digest())
        found.update(repr((picture.boxes, picture.split)).encode())
    return found.hexdigest()
