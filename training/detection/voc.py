"""Reads PASCAL VOC: ``Annotations/*.xml``, ``JPEGImages/``, ``ImageSets/Main/{train,val,test}``."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.detection.records import Box, DetectionSet, Picture, Split, make

_FILES: Final[dict[str, Split]] = {"train": "training", "val": "validation", "test": "test"}
_MAX_BYTES: Final = 4 << 20


def read(folder: Path) -> DetectionSet:
    """Reads the set that lies in ``folder``; pictures are in the order of their names.

    Raises:
        InvalidArgument: a file is missing or is not what the format says.
    """
    annotations = folder / "Annotations"
    files = sorted(annotations.glob("*.xml"))
    if not files:
        raise InvalidArgument(f"'{folder.name}' has no Annotations/*.xml: not a VOC set")
    splits = _splits(folder / "ImageSets" / "Main")
    return make(tuple(_picture(folder, file, splits.get(file.stem)) for file in files))


def _splits(folder: Path) -> dict[str, Split]:
    found: dict[str, Split] = {}
    for name, split in _FILES.items():
        file = folder / f"{name}.txt"
        if not file.exists():
            continue
        for line in file.read_text("utf-8").splitlines():
            words = line.split()
            if not words:
                continue
            if found.get(words[0], split) != split:
                raise InvalidArgument(
                    f"picture '{words[0]}' is both in the {found[words[0]]} and the {split} split"
                )
            found[words[0]] = split
    return found


def _picture(folder: Path, file: Path, split: Split | None) -> Picture:
    where = f"Annotations/{file.name}"
    if file.stat().st_size > _MAX_BYTES:
        raise InvalidArgument(f"{where} is larger than {_MAX_BYTES >> 20} MiB")
    text = file.read_bytes()
    if b"<!ENTITY" in text:  # entities can grow a small file without bound
        raise InvalidArgument(f"{where}: XML entities are not read")
    try:
        root = ElementTree.fromstring(text)
        width, height = (float(_text(root, f"size/{side}")) for side in ("width", "height"))
        if not (width > 0 and height > 0):
            raise ValueError("the size must be positive")
        boxes = tuple(_box(node, width, height) for node in root.iter("object"))
        name = _text(root, "filename")
    except (ElementTree.ParseError, ValueError) as error:
        raise InvalidArgument(f"{where}: {error}") from None
    if Path(name).name != name or name in {"", ".", ".."}:
        raise InvalidArgument(f"{where}: filename must be a file name without folders")
    return Picture(folder / "JPEGImages" / name, boxes, split)


def _box(node: ElementTree.Element, width: float, height: float) -> Box:
    edges = {
        edge: float(_text(node, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
    }
    return Box(
        _text(node, "name"),
        *(edges["xmin"] / width, edges["ymin"] / height),
        *(edges["xmax"] / width, edges["ymax"] / height),
    )


def _text(node: ElementTree.Element, path: str) -> str:
    found = node.findtext(path)
    if found is None or not found.strip():
        raise ValueError(f"<{path}> is missing")
    return found.strip()
