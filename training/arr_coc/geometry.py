"""The grid of patches, and which of them a query means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from crossfade.training.detection.records import Box

GRID_HEIGHT: Final = 12
GRID_WIDTH: Final = 16
PATCHES: Final = GRID_HEIGHT * GRID_WIDTH
CELL: Final = 24  # pixels of the network's input a patch
INPUT_HEIGHT: Final = GRID_HEIGHT * CELL
INPUT_WIDTH: Final = GRID_WIDTH * CELL
COVERED: Final = 0.25  # of a patch: from here on it is relevant
_FINE: Final = 40  # squares in a row of a patch, to measure the area of a union of boxes

OFFSET_SCALE: Final = 4.0  # what the detector says of a centre is in quarters of the picture

PLACES: Final = ("all", "left", "right", "top", "bottom")


def in_place(boxes: np.ndarray, place: str) -> np.ndarray:
    """Tells which boxes ``[n, 4]`` (x_min, y_min, x_max, y_max) have their centre in a place."""
    x = (boxes[:, 0] + boxes[:, 2]) / 2
    y = (boxes[:, 1] + boxes[:, 3]) / 2
    tests = {"left": x < 0.5, "right": x >= 0.5, "top": y < 0.5, "bottom": y >= 0.5}
    return tests[place] if place in tests else np.ones(len(boxes), dtype=bool)


def coverage(boxes: np.ndarray) -> np.ndarray:
    """Returns FP32 ``[GRID_HEIGHT, GRID_WIDTH]``: what part of each patch the boxes cover."""
    mask = np.zeros((GRID_HEIGHT * _FINE, GRID_WIDTH * _FINE), dtype=bool)
    scale = np.array([mask.shape[1], mask.shape[0]] * 2)
    for x_min, y_min, x_max, y_max in np.round(boxes * scale).astype(int):
        mask[max(y_min, 0) : max(y_max, 0), max(x_min, 0) : max(x_max, 0)] = True
    cells = mask.reshape(GRID_HEIGHT, _FINE, GRID_WIDTH, _FINE)
    return np.asarray(cells.mean(axis=(1, 3), dtype=np.float32))


def edges(boxes: Sequence[Box]) -> np.ndarray:
    """Returns FP64 ``[n, 4]``."""
    rows = [(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def relevant(
    boxes: np.ndarray, classes: np.ndarray, n_classes: int, places: int = len(PLACES)
) -> np.ndarray:
    """Labels the patches for every query.

    Args:
        boxes: FP64 ``[n, 4]``, fractions.
        classes: the boxes' class numbers, ``[n]``.
        n_classes: without "any", which is the query class after the last.
        places: how many of ``PLACES``, from the first on.

    Returns:
        BOOL ``[n_classes + 1, places, GRID_HEIGHT, GRID_WIDTH]``.
    """
    out = np.zeros((n_classes + 1, places, GRID_HEIGHT, GRID_WIDTH), dtype=bool)
    for kind in range(n_classes + 1):
        of_kind = boxes if kind == n_classes else boxes[classes == kind]
        for number, place in enumerate(PLACES[:places]):
            chosen = of_kind[in_place(of_kind, place)]
            if len(chosen):
                out[kind, number] = coverage(chosen) >= COVERED
    return out


def centre_offsets(boxes: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Returns where the box that covers a patch most has its centre.

    Returns:
        FP32 ``[n_classes, 2, GRID_HEIGHT, GRID_WIDTH]``: x, y from the patch's centre to the
        box's, in fractions of the picture; NaN where no box of the class touches the patch.
    """
    out = np.full((n_classes, 2, GRID_HEIGHT, GRID_WIDTH), np.nan, dtype=np.float32)
    x_edges = np.arange(GRID_WIDTH + 1) / GRID_WIDTH
    y_edges = np.arange(GRID_HEIGHT + 1) / GRID_HEIGHT
    across = np.minimum(boxes[:, 2:3], x_edges[1:]) - np.maximum(boxes[:, 0:1], x_edges[:-1])
    down = np.minimum(boxes[:, 3:4], y_edges[1:]) - np.maximum(boxes[:, 1:2], y_edges[:-1])
    overlap = across.clip(0)[:, None, :] * down.clip(0)[:, :, None]  # [n, GH, GW]
    centre_x = (boxes[:, 0] + boxes[:, 2]) / 2
    centre_y = (boxes[:, 1] + boxes[:, 3]) / 2
    grid_x = (x_edges[:-1] + x_edges[1:])[None, :] / 2
    grid_y = (y_edges[:-1] + y_edges[1:])[:, None] / 2
    for kind in range(n_classes):
        mine = np.flatnonzero(classes == kind)
        if not len(mine):
            continue
        best = mine[overlap[mine].argmax(axis=0)]  # [GH, GW]
        offsets = np.stack([centre_x[best] - grid_x, centre_y[best] - grid_y])
        touched = overlap[mine].max(axis=0) > 0
        out[kind, :, touched] = offsets[:, touched].T
    return out
