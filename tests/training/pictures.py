"""A small set of pictures that a small network can learn: discs, crosses and stripes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("cross", "disc", "stripes")
SIZE = 16


def write(root: Path, each: int = 20, seed: int = 0) -> Path:
    """One folder for each label, with ``each`` pictures."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    for label in LABELS:
        (root / label).mkdir(parents=True)
        for index in range(each):
            cy, cx = random.uniform(5, 11, 2)
            radius = random.uniform(3, 5)
            shapes = {
                "disc": (y - cy) ** 2 + (x - cx) ** 2 < radius**2,
                "cross": np.minimum(abs(y - cy), abs(x - cx)) < 1.5,
                "stripes": (x + int(cx)) // 2 % 2 == 0,
            }
            noise = random.normal(0, 12, (SIZE, SIZE, 3))
            pixels = np.where(shapes[label][:, :, None], 200, 60) + noise
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / label / f"{index:03d}.png")
    return root


def table(root: Path, each: int = 20) -> Path:
    """The same pictures as Vertex AI's import file: of each label 3/5 TRAINING, the rest halved."""
    pictures = write(root / "pictures", each)
    lines = []
    for path in sorted(pictures.rglob("*.png")):
        fifth = int(path.stem) % 5
        use = {3: "VALIDATION", 4: "TEST"}.get(fifth, "TRAINING")
        lines.append(f"{use},{path.relative_to(root)},{path.parent.name}\n")
    (root / "shapes.csv").write_text("".join(lines))
    return root / "shapes.csv"
