"""Writes an image classifier of Keras as a SavedModel laid out as AutoML's container export.

``image_bytes`` and ``key`` in; ``scores``, ``labels`` and ``key`` out; a second signature takes the
decoded pixels. The network has random weights; its batch normalisation is set on the given images
and its last layer fitted to tell them apart, so that its answers are confident::

    python image_model.py mobilenet OUT IMAGES
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import tensorflow as tf

SIZE = 224


def network(which: str, classes: int, size: int = SIZE) -> Any:
    keras.utils.set_random_seed(1)
    if which == "mobilenet":
        make = keras.applications.MobileNetV2
    else:
        make = keras.applications.EfficientNetB0
    return make(
        weights=None, classes=classes, input_shape=(size, size, 3), classifier_activation=None
    )


def decode(content: Any, size: int = SIZE) -> Any:
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    return tf.image.resize(tf.cast(image, tf.float32), [size, size])


def export(net: Any, names: list[str], scaled: bool, out: str) -> None:
    """Writes a network that gives logits; ``scaled``: it wants pixels from -1 to 1."""

    size = net.input_shape[1]

    def decode_sized(content: Any) -> Any:
        return decode(content, size)

    def classify(image: Any) -> Any:
        x = image / 127.5 - 1.0 if scaled else image
        return {"scores": tf.nn.softmax(net(x, training=False))}

    def serve(image_bytes: Any, key: Any) -> Any:
        spec = tf.TensorSpec([size, size, 3], tf.float32)
        scores = classify(tf.map_fn(decode_sized, image_bytes, fn_output_signature=spec))["scores"]
        labels = tf.tile(tf.constant([names]), [tf.shape(scores)[0], 1])
        return {"labels": labels, "scores": scores, "key": key}

    archive = keras.export.ExportArchive()
    archive.track(net)
    archive.add_endpoint(
        "serving_default",
        serve,
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None], tf.string, name="key"),
        ],
    )
    archive.add_endpoint(
        "pixels",
        classify,
        input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, name="image")],
    )
    archive.write_out(out, verbose=False)


def main() -> None:
    which, out, images = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    files = sorted(p for p in images.iterdir() if p.suffix == ".jpeg")
    names = [p.stem for p in files]
    net = network(which, len(files))
    scaled = which == "mobilenet"  # EfficientNet scales inside

    pixels = np.stack([decode(p.read_bytes()).numpy() for p in files])
    fed = pixels / 127.5 - 1 if scaled else pixels
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, keras.layers.Normalization):
            layer.adapt(pixels / 255)
    for _ in range(3):
        net(fed, training=True)
    head = net.layers[-1]
    features = keras.Model(net.inputs, head.input)(fed, training=False).numpy()
    centred = features - features.mean(axis=0)
    weights = np.linalg.pinv(centred) @ (12 * (np.eye(len(files)) - 1 / len(files)))
    head.set_weights(
        [weights.astype(np.float32), (-features.mean(axis=0) @ weights).astype(np.float32)]
    )

    export(net, names, scaled, out)
    print(keras.ops.softmax(net(fed, training=False)).numpy().max(axis=1))


if __name__ == "__main__":
    main()
