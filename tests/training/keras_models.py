"""SavedModels as Keras 3 writes them, with statistics as after a training; needs TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.savedmodel.library import tensorflow


def small_net(folder: Path) -> None:
    """Pictures of any size to 5 classes, with every kind of layer that the large ones have."""
    keras = tensorflow().keras
    layers = keras.layers
    x = image = keras.Input((None, None, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    skip = x = layers.Activation("swish")(x)
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(2, 1, activation="swish", name="squeeze")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Conv2D(8, 1, padding="same", name="project")(x)
    x = layers.Add()([layers.BatchNormalization(name="project_bn", epsilon=1e-2)(x), skip])
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="down")(x)
    x = layers.BatchNormalization(name="down_bn", scale=False)(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(layers.ReLU()(x))
    x = layers.DepthwiseConv2D(5, strides=2, padding="same", depth_multiplier=2, name="wide")(x)
    x = layers.BatchNormalization(name="wide_bn", center=False)(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dense(5, activation="softmax", name="scores")(layers.Dropout(0.3)(x))
    save(keras.Model(image, x), folder, gain=2.0)


def table_net(folder: Path) -> None:
    """Columns (numbers, and a category as a number) to two scores: an MLP with an embedding."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(3)
    layers = keras.layers
    numbers = keras.Input((6,), name="numbers")
    category = keras.Input((1,), dtype="int32", name="category")
    known = layers.Flatten()(layers.Embedding(9, 4, name="embedding")(category))
    scaled = layers.Normalization(mean=[1.0] * 6, variance=[4.0] * 6)(numbers)
    x = layers.Dense(16, name="first")(layers.Concatenate()([scaled, known]))
    x = layers.ReLU()(layers.BatchNormalization(name="first_bn")(x))
    x = layers.Dense(8, activation="tanh", use_bias=False, name="second")(x)
    save(keras.Model([numbers, category], layers.Dense(2, name="scores")(x)), folder)


def application(name: str, folder: Path) -> None:
    """One of Keras' own architectures, for pictures of any size, ten classes."""
    keras = tensorflow().keras
    keras.utils.set_random_seed(3)
    base = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3)
    )
    save(keras.Model(base.input, keras.layers.Dense(10, activation="softmax")(base.output)), folder)


def save(model: Any, folder: Path, gain: float = 1.0) -> None:
    """Gives a model statistics and writes it with one signature; ``gain`` is of its kernels."""
    tf = tensorflow()
    random = np.random.default_rng(3)
    for variable in model.variables:
        shape, name = variable.shape, variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(random.normal(0, 0.2, shape))
        elif name == "kernel":
            variable.assign(gain * variable)
    specs = [tf.TensorSpec((None, *i.shape[1:]), i.dtype, name=i.name) for i in model.inputs]

    class Export(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model = model

        @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
        def serve(self, *inputs: Any) -> Any:
            return {"scores": self.model(list(inputs) if len(inputs) > 1 else inputs[0])}

    module = Export()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
