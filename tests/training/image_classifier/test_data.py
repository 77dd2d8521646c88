"""Data sets: splits that share nothing, and data that cannot be learned from are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.training.image_classifier.config import Data
from crossfade.training.image_classifier.data import SPLITS, load
from tests.training import pictures

SMALL = Data(size=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures.write(tmp_path / "shapes", each=10)


def test_splits_are_stratified_and_the_same_again(folder: Path) -> None:
    data = load(folder, SMALL, seed=1)
    assert data.labels == pictures.LABELS
    assert data.origin.counts == {"training": 24, "validation": 3, "test": 3}
    for split in SPLITS:
        counts = Counter(data.splits[split].classes.tolist())
        assert set(counts) == {0, 1, 2}
    assert data.splits["training"].pixels.shape == (24, 3, 16, 16)
    assert load(folder, SMALL, seed=1).origin == data.origin
    assert load(folder, SMALL, seed=2).origin != data.origin


def test_copies_of_a_picture_stay_together(folder: Path) -> None:
    for label in pictures.LABELS:
        for index in range(10):
            source = folder / label / f"{index:03d}.png"
            (folder / label / f"copy{index}.png").write_bytes(source.read_bytes())
    data = load(folder, Data(size=16, test_share=0.3), seed=1)
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        for pixels in data.splits[split].pixels:
            assert seen.setdefault(pixels.numpy().tobytes(), split) == split


def test_pixels_are_those_of_the_file(folder: Path) -> None:
    data = load(folder, SMALL, seed=1)
    with Image.open(folder / "disc" / "000.png") as image:
        expected = image.tobytes()
    found = [
        pixels.permute(1, 2, 0).numpy().tobytes()
        for split in SPLITS
        for pixels in data.splits[split].pixels
    ]
    assert expected in found


def test_a_csv_says_its_own_splits(tmp_path: Path) -> None:
    data = load(pictures.table(tmp_path, each=10), SMALL, seed=1)
    assert data.origin.counts == {"training": 18, "validation": 6, "test": 6}


def test_a_csv_without_splits_and_with_windows_marks(tmp_path: Path) -> None:
    pictures.write(tmp_path / "p", each=10)
    lines = [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert load(tmp_path / "d.csv", SMALL, seed=1).origin.counts["training"] == 24


def break_picture(folder: Path) -> Path:
    (folder / "disc" / "000.png").write_bytes(b"\x89PNG but no more")
    return folder


def empty_label(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder


def one_label(folder: Path) -> Path:
    return folder / "disc"


def two_labels(folder: Path) -> Path:
    copied = (folder / "disc" / "000.png").read_bytes()
    (folder / "cross" / "same.png").write_bytes(copied)
    return folder


def leaking(folder: Path) -> Path:
    copied = folder / "disc" / "copy.png"
    copied.write_bytes((folder / "disc" / "000.png").read_bytes())
    path = folder / "d.csv"
    path.write_text("TRAINING,disc/000.png,disc\nTEST,disc/copy.png,disc\nTEST,cross/000.png,x\n")
    return path


def table(text: str) -> object:
    def write(folder: Path) -> Path:
        (folder / "d.csv").write_text(text)
        return folder / "d.csv"

    return write


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (break_picture, "'disc/000.png' cannot be read as pictures"),
        (empty_label, "the label 'nothing' has no pictures"),
        (one_label, "has 0 labels: a classifier needs two"),
        (two_labels, "the same picture, once with the label"),
        (leaking, "what is measured would be a lie"),
        (table("disc/000.png\n"), "line 1: not [ML_USE,]path,label"),
        (table("disc/000.png,a\nPLAY,disc/000.png,a\n"), "line 2: 'PLAY' is not training"),
        (table("disc/none.png,a\n"), "line 1: there is no file 'disc/none.png'"),
        (table("TRAIN,disc/000.png,a\nTRAIN,cross/000.png,b\n"), "split 'validation' has no"),
        (lambda folder: folder / "absent", "there are no data"),
    ],
)
def test_what_cannot_be_learned_from(folder: Path, change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises((InvalidArgument, NotFound)) as caught:
        load(change(folder), SMALL, seed=1)
    assert said in caught.value.message
