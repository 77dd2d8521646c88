"""Scenes composed of scikit-learn's digits: a detection set that needs no download.

Ten classes of handwriting in unequal sizes and contrasts on an uneven ground, as PNG files with
an import file in Vertex AI's format.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from crossfade.runtimes.extras import require
from crossfade.training.detection.records import SPLITS

_WIDTH: Final = 320
_HEIGHT: Final = 240
_SIDES: Final = (24, 56)  # pixels of a digit, of 320
_MOST: Final = 8  # digits in a scene


def compose(
    folder: Path,
    counts: tuple[int, int, int],
    seed: int,
    classes: Sequence[int] = range(10),
) -> Path:
    """Writes scenes and returns the import file.

    Args:
        folder: made where it is not there.
        counts: scenes for training, validation and test; no handwriting is in two of them.
        seed: decides.
        classes: the digits that are used.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    bundle = require("sklearn.datasets", "training", "composing digits").load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(np.isin(bundle.target, list(classes))))
    parts = np.array_split(order, [len(order) * 6 // 10, len(order) * 8 // 10])
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for split, count, rows in zip(SPLITS, counts, parts, strict=True):
        for number in range(count):
            name = f"{split}-{number:04d}.png"
            chosen = rng.choice(rows, size=rng.integers(3, _MOST + 1), replace=False)
            scene, boxes = _scene(bundle.images[chosen], bundle.target[chosen], rng)
            Image.fromarray(scene).save(folder / name)
            lines.append(
                {
                    "imageGcsUri": name,
                    "boundingBoxAnnotations": boxes,
                    "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": split},
                }
            )
    file = folder / "import.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return file


def _scene(
    images: np.ndarray, classes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns UINT8 ``[_HEIGHT, _WIDTH, 3]`` and the boxes as the import file has them."""
    ground = rng.uniform(0, 90, (6, 8)).astype(np.float32)
    large = Image.fromarray(ground).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    scene = np.asarray(large) + rng.normal(0, 6, (_HEIGHT, _WIDTH))
    boxes: list[dict[str, Any]] = []
    taken = np.zeros((_HEIGHT, _WIDTH), dtype=bool)
    for image, kind in zip(images, classes, strict=True):
        side = int(rng.integers(*_SIDES))
        top, left = int(rng.integers(_HEIGHT - side)), int(rng.integers(_WIDTH - side))
        place = (slice(top, top + side), slice(left, left + side))
        if taken[place].any():
            continue
        taken[place] = True
        ink = Image.fromarray((image * 255 / 16).astype(np.uint8))
        drawn = np.asarray(ink.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
        scene[place] += drawn * rng.uniform(0.5, 0.65)
        edges = {
            "xMin": left / _WIDTH,
            "yMin": top / _HEIGHT,
            "xMax": (left + side) / _WIDTH,
            "yMax": (top + side) / _HEIGHT,
        }
        boxes.append({"displayName": f"digit {kind}", **edges})
    grey = np.clip(scene, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), boxes
