from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crossfade.training.arr_coc.augmentation import view
from crossfade.training.arr_coc.geometry import (
    COVERED,
    GRID_HEIGHT,
    GRID_WIDTH,
    PLACES,
    centre_offsets,
    coverage,
    relevant,
)

CELL_X, CELL_Y = 1 / GRID_WIDTH, 1 / GRID_HEIGHT


def test_a_patch_is_relevant_from_a_quarter_on() -> None:
    half = np.array([[0, 0, CELL_X / 2, CELL_Y / 2]])
    found = coverage(half)
    assert found[0, 0] == COVERED
    assert found.sum() == COVERED
    assert relevant(half, np.array([0]), 1)[0, 0, 0, 0]
    less = half * 0.9
    assert not relevant(less, np.array([0]), 1).any()


def test_overlapping_boxes_count_once() -> None:
    box = [0, 0, CELL_X / 2, CELL_Y / 2]
    assert coverage(np.array([box, box])).sum() == COVERED


def test_places_go_by_the_centre_of_the_box() -> None:
    boxes = np.array([[0.3, 0.1, 0.6, 0.3]])  # centre (0.45, 0.2)
    found = relevant(boxes, np.array([0]), 2)
    asked = {place: found[0, n].any() for n, place in enumerate(PLACES)}
    assert asked == {"all": True, "left": True, "right": False, "top": True, "bottom": False}
    assert not found[1].any()
    assert (found[2] == found[0]).all()
    assert found[0, PLACES.index("left"), :, GRID_WIDTH // 2].any()  # past the middle, too


def test_offsets_lead_from_the_patch_to_the_centre() -> None:
    boxes = np.array([[0.25, 0.25, 0.75, 0.5], [0.3, 0.3, 0.32, 0.32]])
    out = centre_offsets(boxes, np.array([1, 0]), 2)
    y, x = np.argwhere(np.isfinite(out[1, 0]))[0]
    assert np.allclose((x + 0.5) * CELL_X + out[1, 0, y, x], 0.5)
    assert np.allclose((y + 0.5) * CELL_Y + out[1, 1, y, x], 0.375)
    assert np.isfinite(out[0, 0]).sum() <= 4


@given(st.integers(0, 999))
def test_a_view_moves_boxes_with_the_pixels(seed: int) -> None:
    pixels = np.zeros((96, 128, 3), dtype=np.uint8)
    pixels[30:60, 40:80] = 200
    boxes = np.array([[40 / 128, 30 / 96, 80 / 128, 60 / 96]])
    seen, moved, kept = view(pixels, boxes, np.random.default_rng(seed))
    assert kept.all()
    x0, y0, x1, y1 = np.round(moved[0] * [128, 96, 128, 96]).astype(int)
    inside = seen[y0:y1, x0:x1].astype(int)
    assert inside.min() > seen[0, 0].astype(int).max()
    assert inside.shape[:2] == (30, 40)


def test_flips_permute_the_places() -> None:
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.9, 0.8]])
    kinds = np.array([0, 0])
    flipped = boxes.copy()
    flipped[:, [0, 2]] = 1 - boxes[:, [2, 0]]
    left, right = PLACES.index("left"), PLACES.index("right")
    one, two = relevant(boxes, kinds, 1), relevant(flipped, kinds, 1)
    assert (one[:, left] == two[:, right, :, ::-1]).all()
