"""Writes scikit-learn's digits as a team has them: few labels at first, more later.

    python examples/graduate/data.py work/

| what | |
|---|---|
| ``early.csv`` | the first 200 as a table, a column a pixel |
| ``early/`` | the same as pictures, a folder for each label |
| ``later/`` | the first 1,100 |
| ``held_out/``, ``held_out.csv`` | the last 697, which nothing is trained on, and their labels |
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

EARLY, LATER = 200, 1100


def write(folder: Path) -> None:
    """Fills a folder with all of it."""
    pixels, labels = load_digits(return_X_y=True)
    pictures = [Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8)) for row in pixels]

    def save(name: str, numbers: Iterable[int], by_label: bool = True) -> None:
        for number in numbers:
            place = folder / name / str(labels[number]) if by_label else folder / name
            place.mkdir(parents=True, exist_ok=True)
            pictures[number].save(place / f"{number}.png")

    save("early", range(EARLY))
    save("later", range(LATER))
    save("held_out", range(LATER, len(labels)), by_label=False)
    columns = [f"pixel_{number}" for number in range(pixels.shape[1])]
    rows = ([*pixels[number].astype(int), labels[number]] for number in range(EARLY))
    _write_csv(folder / "early.csv", [*columns, "digit"], rows)
    told = ((f"{number}.png", labels[number]) for number in range(LATER, len(labels)))
    _write_csv(folder / "held_out.csv", ["file", "label"], told)


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
