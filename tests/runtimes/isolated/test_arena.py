"""Tensors that travel through shared memory come out as they went in, and no lie is believed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.isolated.arena import Arena, Misplaced


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create()
    yield made
    made.close()


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=5), max_size=4, unique=True)):
        dtype = draw(st.sampled_from(sorted(NUMPY)))
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        array = np.empty(shape, NUMPY[dtype])
        if dtype == "BYTES":
            flat = array.reshape(-1)
            flat[:] = draw(st.lists(st.binary(max_size=9), min_size=flat.size, max_size=flat.size))
        else:
            size = array.nbytes
            raw = draw(st.binary(min_size=size, max_size=size))
            if dtype == "BOOL":
                raw = bytes(byte & 1 for byte in raw)
            array = np.frombuffer(raw, NUMPY[dtype]).reshape(shape)
        if draw(st.booleans()):
            array = array.T  # not contiguous
        found[name] = array
    return found


@settings(deadline=None)
@given(tensors(), st.integers(0, 5000), st.booleans())
def test_what_one_side_writes_the_other_reads(
    written: dict[str, np.ndarray], start: int, copy: bool
) -> None:
    here = Arena.create()
    there = Arena(os.dup(here.descriptor))
    try:
        places, end = here.write(written, start)
        assert end >= start
        read = there.read(places, copy=copy)
        assert list(read) == list(written)
        for name, array in written.items():
            assert read[name].dtype == array.dtype
            assert read[name].shape == array.shape
            if array.dtype == object:
                assert read[name].tolist() == array.tolist()
            else:
                assert read[name].tobytes() == array.tobytes()
    finally:
        here.close()
        there.close()


def test_views_share_the_memory_and_copies_do_not(arena: Arena) -> None:
    places, _ = arena.write({"x": np.zeros(4, np.float32)})
    view, copy = (arena.read(places, copy=copied)["x"] for copied in (False, True))
    arena.write({"x": np.ones(4, np.float32)})
    assert view.tolist() == [1, 1, 1, 1]
    assert copy.tolist() == [0, 0, 0, 0]


def test_it_grows_under_views_that_stay(arena: Arena) -> None:
    places, end = arena.write({"x": np.arange(10)})
    view = arena.read(places, copy=False)["x"]
    large = np.arange(1 << 20)
    more, _ = arena.write({"y": large}, end)
    assert (arena.read(more, copy=True)["y"] == large).all()
    assert view.tolist() == list(range(10))


def test_pages_of_a_large_run_go_back(arena: Arena) -> None:
    arena.write({"x": np.ones(128 << 20, np.uint8)})
    blocks = os.fstat(arena.descriptor).st_blocks
    arena.trim()
    after = os.fstat(arena.descriptor).st_blocks
    assert blocks * 512 >= 128 << 20
    assert after * 512 <= 33 << 20


def test_nobody_can_shrink_it(arena: Arena) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(arena.descriptor, 0)


GOOD = ["x", "FP32", [2, 2], 0, 16]


@pytest.mark.parametrize(
    "place",
    [
        None,
        [],
        {"name": "x"},
        ["x", "FP32", [2, 2], 0],
        [1, *GOOD[1:]],
        ["x", "FP99", [2, 2], 0, 16],
        ["x", "FP32", None, 0, 16],
        ["x", "FP32", [2, -2], 0, 16],
        ["x", "FP32", [2, 2.0], 0, 16],
        ["x", "FP32", [True, 4], 0, 16],
        ["x", "FP32", [2, 2], -16, 16],
        ["x", "FP32", [2, 2], 0, 15],
        ["x", "FP32", [2, 2], 1 << 40, 16],
        ["x", "FP32", [1 << 62, 4], 0, 0],
        ["x", "FP32", [1 << 40], 0, 1 << 42],
        ["x", "BYTES", [5], 0, 16],
        ["x", "BYTES", [1 << 60], 0, 4],
        ["x", "BYTES", [1], 0, 3000],
    ],
)
def test_a_place_that_cannot_be_is_refused(arena: Arena, place: Any) -> None:
    arena.write({"x": np.full((2, 2), 3, np.float32)})
    assert arena.read([GOOD], copy=True)["x"].shape == (2, 2)
    with pytest.raises(Misplaced):
        arena.read([place], copy=True)
