from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.detection import splits
from crossfade.training.detection.checks import checked
from crossfade.training.detection.records import (
    SPLITS,
    Box,
    DetectionSet,
    Picture,
    Split,
    make,
)

GOOD = Box("cat", 0.1, 0.1, 0.5, 0.5)


def pictures(folder: Path, seeds: tuple[int, int, int] = (0, 1, 2)) -> tuple[Picture, ...]:
    out = []
    for number, (seed, split) in enumerate(zip(seeds, SPLITS, strict=True)):
        pixels = np.random.default_rng(seed).integers(0, 255, (9, 16, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).resize((64, 36), Image.Resampling.NEAREST).save(path)
        out.append(Picture(path, (GOOD,) * 5, split))
    return tuple(out)


def test_a_clean_set_passes_without_warnings(tmp_path: Path) -> None:
    assert checked(make(pictures(tmp_path))).warnings == ()


def test_boxes_without_area_are_left_out_and_told(tmp_path: Path) -> None:
    first, *others = pictures(tmp_path)
    flat = Box("cat", 0.2, 0.2, 0.2, 0.4)
    data = checked(make((dataclasses.replace(first, boxes=(*first.boxes, flat)), *others)))
    assert data.pictures[0].boxes == first.boxes
    assert data.warnings == ("'0.png': a box of 'cat' without area left out",)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    data = make(pictures(tmp_path))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    with pytest.raises(InvalidArgument, match=r"'1\.png' is truncated or damaged"):
        checked(data)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    data = make(pictures(tmp_path))
    (tmp_path / "2.png").unlink()
    with pytest.raises(InvalidArgument, match=r"'2\.png' is missing"):
        checked(data)


def test_the_same_picture_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="the same file: the splits leak"):
        checked(make(pictures(tmp_path, (0, 1, 0))))


def test_look_alikes_in_two_splits_are_told(tmp_path: Path) -> None:
    data = make(pictures(tmp_path, (0, 1, 0)))
    with Image.open(tmp_path / "2.png") as image:
        brighter = image.point(lambda v: min(255, v + 1))
    brighter.save(tmp_path / "2.png")
    assert "look alike" in checked(data).warnings[0]


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no picture in the test split"):
        checked(make(pictures(tmp_path)[:2]))


def test_a_class_that_a_split_lacks_is_refused(tmp_path: Path) -> None:
    first, *others = pictures(tmp_path)
    with_dog = dataclasses.replace(first, boxes=(*first.boxes, Box("dog", 0, 0, 1, 1)))
    with pytest.raises(InvalidArgument, match="'dog' has no box in the validation split"):
        checked(make((with_dog, *others)))


def test_a_coordinate_that_is_no_number_is_refused(tmp_path: Path) -> None:
    first, *others = pictures(tmp_path)
    bad = dataclasses.replace(first, boxes=(Box("cat", float("nan"), 0, 1, 1),))
    with pytest.raises(InvalidArgument, match="not a finite number"):
        checked(make((bad, *others)))


def unread(n: int, with_splits: bool) -> DetectionSet:
    names: list[Split | None] = [SPLITS[i % 3] if with_splits else None for i in range(n)]
    return make(tuple(Picture(Path(f"{i:03}.png"), (GOOD,), s) for i, s in enumerate(names)))


@given(st.integers(3, 60), st.booleans(), st.integers(0, 5))
def test_redrawn_splits_have_the_sizes_of_the_old(n: int, given_splits: bool, seed: int) -> None:
    data = unread(n, given_splits)
    again = splits.redraw(data, seed)
    assert splits.sizes(again) == splits.sizes(data)
    assert splits.redraw(data, seed) == again
    assert [p.path for p in again.pictures] == [p.path for p in data.pictures]


@given(st.integers(3, 60))
def test_contiguous_splits_are_blocks(n: int) -> None:
    found = [p.split for p in splits.contiguous(unread(n, False)).pictures]
    order: list[Split | None] = list(SPLITS)
    assert found == sorted(found, key=order.index)
