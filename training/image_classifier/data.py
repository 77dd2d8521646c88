"""Pictures with a label each, of a folder or a CSV file, in splits that share none."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.runtimes.core.model import InferRequest, TensorSpec
from crossfade.serving.config.processing_config import Preprocess
from crossfade.serving.processing.images import ImageInput, image_input
from crossfade.serving.repository.lineage import Origin, digest_of
from crossfade.training.core import seeds
from crossfade.training.image_classifier.config import Data

Split = Literal["training", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("training", "validation", "test")
INPUT: Final = "image"
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".ico")
_USES: Final[Mapping[str, Split | None]] = {
    "training": "training",
    "train": "training",
    "validation": "validation",
    "validate": "validation",
    "test": "test",
    "unassigned": None,
}
_SHOWN: Final = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One picture before it is read; ``split`` is ``None`` where the data do not say."""

    path: Path
    label: str
    split: Split | None


@dataclasses.dataclass(frozen=True, slots=True)
class Pictures:
    """A split in memory.

    Attributes:
        pixels: uint8 [n, channels, size, size], as a server would make them.
        classes: int64 [n], indices of the labels.
    """

    pixels: torch.Tensor
    classes: torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class DataSet:
    """All splits, the labels in index order, and where they are from."""

    splits: Mapping[Split, Pictures]
    labels: tuple[str, ...]
    origin: Origin


def find(place: Path) -> list[Example]:
    """Lists a data set.

    Args:
        place: a folder with one folder of pictures for each label, or a CSV file with the columns
            of Vertex AI's import files, ``[ML_USE,]path,label``, paths relative to it.

    Raises:
        NotFound: there is nothing at ``place``, or not what the CSV file names.
        InvalidArgument: a label without pictures, fewer than two labels, a line that is wrong.
    """
    if not place.exists():
        raise NotFound(f"there are no data at '{place}'")
    found = _of_folder(place) if place.is_dir() else _of_csv(place)
    labels = {example.label for example in found}
    if len(labels) < 2:
        raise InvalidArgument(
            f"'{place.name}' has {len(labels)} labels: a classifier needs two; --data is a folder"
            " with one folder of pictures for each label, or a CSV file [ML_USE,]path,label"
        )
    return found


def preprocess(config: Data) -> Preprocess:
    """``preprocess`` of the version's ``model.yaml``, which the trainer reads pictures by, too."""
    return Preprocess(color=config.color, layout="nchw", resize=config.resize)


def load(place: Path, config: Data, seed: int) -> DataSet:
    """Reads all pictures.

    Raises:
        NotFound, InvalidArgument: as ``find``; a picture is broken, is there with two labels, or
            is in two splits; a split has none.
    """
    examples = find(place)
    channels = 1 if config.color == "gray" else 3
    spec = TensorSpec(INPUT, "UINT8", (-1, channels, config.size, config.size))
    reader = image_input(preprocess(config), [spec], None)
    pixels, digests = _read(examples, reader)
    _refuse_contradictions(examples, digests)
    assigned = _assign(examples, digests, config, seed)
    labels = tuple(sorted({example.label for example in examples}))
    index = {label: i for i, label in enumerate(labels)}
    classes = np.array([index[example.label] for example in examples], np.int64)
    splits: dict[Split, Pictures] = {}
    for split in SPLITS:
        rows = np.array([i for i, s in enumerate(assigned) if s == split], np.int64)
        if not len(rows):
            raise InvalidArgument(f"the split '{split}' has no pictures")
        splits[split] = Pictures(torch.from_numpy(pixels[rows]), torch.from_numpy(classes[rows]))
    missing = set(range(len(labels))) - set(splits["training"].classes.tolist())
    if missing:
        raise InvalidArgument(f"no training picture has the label '{labels[min(missing)]}'")
    counts: dict[str, int] = {split: len(splits[split].classes) for split in SPLITS}
    lines = zip(digests, (e.label for e in examples), assigned, strict=True)
    digest = digest_of(sorted("\0".join(line) for line in lines))
    return DataSet(splits, labels, Origin(name=place.name, sha256=digest, counts=counts))


def _of_folder(place: Path) -> list[Example]:
    found: list[Example] = []
    for folder in sorted(p for p in place.iterdir() if p.is_dir() and p.name[0] != "."):
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
        if not files:
            raise InvalidArgument(f"the label '{folder.name}' has no pictures")
        found += [Example(path, folder.name, None) for path in files]
    return found


def _of_csv(place: Path) -> list[Example]:
    found: list[Example] = []
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.reader(file), 1):
                if row:
                    found.append(_of_row(place, number, [cell.strip() for cell in row]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidArgument(f"'{place.name}' is not a CSV file") from error
    return found


def _of_row(place: Path, number: int, row: Sequence[str]) -> Example:
    where = f"'{place.name}' line {number}"
    use, *rest = row if len(row) == 3 else ["unassigned", *row]
    if len(rest) != 2 or not all(rest):
        raise InvalidArgument(f"{where}: not [ML_USE,]path,label")
    if use.lower() not in _USES:
        raise InvalidArgument(f"{where}: '{use[:40]}' is not training, validation or test")
    path = place.parent / rest[0]
    if not path.is_file():
        raise NotFound(f"{where}: there is no file '{rest[0]}'")
    return Example(path, rest[1], _USES[use.lower()])


def _read(
    examples: Sequence[Example], reader: ImageInput
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    pixels = np.empty((len(examples), *reader.row), np.uint8)
    digests: list[str] = []
    broken: list[str] = []
    for index, example in enumerate(examples):
        content = example.path.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        files = np.array([content], object)
        try:
            pixels[index] = reader.read(InferRequest({INPUT: files}), files)[0][0]
        except InvalidArgument:
            broken.append(f"'{example.path.parent.name}/{example.path.name}'")
    if broken:
        more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        raise InvalidArgument(
            f"{', '.join(broken[:_SHOWN])}{more} cannot be read as pictures: mend or remove them"
        )
    return pixels, digests


def _refuse_contradictions(examples: Sequence[Example], digests: Sequence[str]) -> None:
    first: dict[str, Example] = {}
    for example, digest in zip(examples, digests, strict=True):
        other = first.setdefault(digest, example)
        if other.label != example.label:
            raise InvalidArgument(
                f"'{example.path.name}' and '{other.path.name}' are the same picture, once with"
                f" the label '{other.label}' and once with '{example.label}'"
            )
        if None not in (other.split, example.split) and other.split != example.split:
            raise InvalidArgument(
                f"'{example.path.name}' in {example.split} is the same picture as"
                f" '{other.path.name}' in {other.split}: what is measured would be a lie"
            )


def _assign(
    examples: Sequence[Example], digests: Sequence[str], config: Data, seed: int
) -> list[Split]:
    """The splits that the data say, and for the rest the same shares of each label.

    Copies of one picture go together.
    """
    known: dict[str, Split] = {
        d: e.split for e, d in zip(examples, digests, strict=True) if e.split is not None
    }
    # Data that have a test split say all there is to test by.
    given = Counter(known.values())
    shares: list[tuple[Split, float]] = [
        ("test", 0.0 if given["test"] else config.test_share),
        ("validation", 0.0 if given["validation"] else config.validation_share),
    ]
    by_label: dict[str, set[str]] = {}
    for example, digest in zip(examples, digests, strict=True):
        if digest not in known:
            by_label.setdefault(example.label, set()).add(digest)
    for open_ in by_label.values():
        ordered = sorted(open_, key=lambda digest: seeds.derived(seed, "split", digest))
        known.update(_divided(ordered, shares))
    return [known[digest] for digest in digests]


def _divided(ordered: Sequence[str], shares: Iterable[tuple[Split, float]]) -> dict[str, Split]:
    found: dict[str, Split] = dict.fromkeys(ordered, "training")
    start = 0
    for split, share in shares:
        # At least one of a label of three or more; a label of fewer is only trained on.
        count = round(len(ordered) * share) or (1 if share and len(ordered) > 2 else 0)
        found.update(dict.fromkeys(ordered[start : start + count], split))
        start += count
    return found
