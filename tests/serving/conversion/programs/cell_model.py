"""Trains an image classifier of Keras on blood cells cut out of photographs, and exports it.

The layout is that of ``image_model.py``. Beside the model, the cells of the test split are written
as files, and ``labels.csv`` says what they are::

    python cell_model.py efficientnet OUT BCCD CELLS EPOCHS
"""

from __future__ import annotations

import csv
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image_model
import keras
import numpy as np
from PIL import Image

SIZE = 96
NAMES = ["RBC", "WBC", "Platelets"]
EACH = {"train": 200, "test": 69}  # as many of each class: the rarest has no more


def cells(data: Path, split: str) -> Iterator[tuple[Image.Image, int]]:
    """Squares around the boxes of a split, as many of each class."""
    left = dict.fromkeys(NAMES, EACH[split])
    for name in (data / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        photograph = Image.open(data / "JPEGImages" / f"{name}.jpg").convert("RGB")
        for cell in ET.parse(data / "Annotations" / f"{name}.xml").getroot().iter("object"):
            label = cell.findtext("name", "")
            box = [
                int(cell.findtext(f"bndbox/{side}", "0"))
                for side in ("xmin", "ymin", "xmax", "ymax")
            ]
            side = max(box[2] - box[0], box[3] - box[1])
            if side < 8 or not left[label]:
                continue
            left[label] -= 1
            x, y = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
            square = photograph.crop((x, y, x + side, y + side))
            yield square.resize((SIZE, SIZE), Image.Resampling.BILINEAR), NAMES.index(label)


def load(data: Path, split: str) -> tuple[list[Image.Image], Any, Any]:
    images, labels = zip(*cells(data, split), strict=True)
    return (
        list(images),
        np.stack([np.asarray(i) for i in images]).astype(np.float32),
        np.array(labels),
    )


def main() -> None:
    which, out, data, folder, epochs = (
        sys.argv[1],
        sys.argv[2],
        *map(Path, sys.argv[3:5]),
        sys.argv[5],
    )
    net = image_model.network(which, len(NAMES), SIZE)
    scaled = which == "mobilenet"
    _, pixels, labels = load(data, "train")
    images, test, expected = load(data, "test")
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # a few hundred steps
        if isinstance(layer, keras.layers.Normalization):
            layer.adapt(pixels / 255)
    if scaled:
        pixels, test = pixels / 127.5 - 1, test / 127.5 - 1
    pixels = np.concatenate([pixels, pixels[:, ::-1], pixels[:, :, ::-1]])
    labels = np.concatenate([labels] * 3)
    net.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    net.fit(pixels, labels, batch_size=32, epochs=int(epochs), verbose=2)
    for layer in net.layers:  # what the moving averages have not caught up with
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    net(pixels[: len(pixels) // 3], training=True)
    accuracy = float((net.predict(test, verbose=0).argmax(1) == expected).mean())
    image_model.export(net, NAMES, scaled, out)
    folder.mkdir(parents=True)
    with (folder.parent / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label"])
        for index, (image, label) in enumerate(zip(images, expected, strict=True)):
            image.save(folder / f"{index:03}.png")
            table.writerow([f"{index:03}.png", NAMES[label]])
    print(f"accuracy on the test split: {accuracy:.3f}")


if __name__ == "__main__":
    main()
