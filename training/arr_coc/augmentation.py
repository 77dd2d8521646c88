"""Other views of a picture and its boxes: flipped, shifted, in another light."""

from __future__ import annotations

from typing import Final

import numpy as np

_SHIFT: Final = 0.08  # of the picture's side, at most


def view(
    pixels: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a view.

    Args:
        pixels: UINT8 ``[height, width, 3]``.
        boxes: FP64 ``[n, 4]``, fractions.
        rng: decides.

    Returns:
        New pixels; the boxes in them, cut at the edges; which of the boxes are left, ``[n]``.
    """
    boxes = boxes.copy()
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
        boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
    if rng.random() < 0.5:
        pixels = pixels[::-1]
        boxes[:, [1, 3]] = 1 - boxes[:, [3, 1]]
    height, width = pixels.shape[:2]
    down, right = (int(rng.uniform(-_SHIFT, _SHIFT) * side) for side in (height, width))
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    pixels = pixels[rows][:, columns]
    boxes = np.clip(boxes + np.array([right / width, down / height] * 2), 0, 1)
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return _relight(pixels, rng), boxes, kept


def _relight(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes gain, offset and colour balance, by one table a channel."""
    gain = rng.uniform(0.8, 1.25) * rng.uniform(0.93, 1.07, size=(3, 1))
    offset = rng.uniform(-20, 20)
    levels = np.arange(256, dtype=np.float64)[None]
    tables = np.clip((levels - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)
    return np.stack([tables[c][pixels[..., c]] for c in range(3)], axis=-1)
