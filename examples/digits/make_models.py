"""Make the two models and the sample pictures of this folder from scikit-learn's bundled digits.

The first model is laid out as an AutoML Vision Edge export for TensorFlow Lite, the second is what
a team would train to replace it. Nothing is downloaded: the 1,797 digits of 8x8 pixels come inside
scikit-learn. Run it rarely; what it writes is committed.

Command::

    python3.11 -m venv /tmp/digits-venv
    /tmp/digits-venv/bin/pip install tensorflow-cpu==2.21.0 scikit-learn==1.9.1 onnx==1.23.2 \
        ai-edge-litert==2.3.0 onnxruntime==1.32.0 pillow
    /tmp/digits-venv/bin/python examples/digits/make_models.py

Expected time: 70 s on one core.
Expected result, on the 600 test digits: digits_automl 0.963, digits_custom 0.988 (22 and 7 wrong).

One thread and fixed seeds make a second run on one machine write the same bytes; another processor
may round differently.

The split is by position, the first 1,197 digits for training and the last 600 for testing. It is
not shuffled: neighbours in the file look like one writer's, a shuffled split would put the same
hands on both sides, and the task gets easier by it (a support vector machine: 0.99, not 0.97).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN_COUNT = 1197
PICTURE_SIZE = 64
AUTOML_SIZE = 32
CUSTOM_SIZE = 8
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
DEFAULT_FILTER = "bilinear"

AUTOML_SEED = 7
AUTOML_VARIANTS = 3  # the training picture itself, and distorted copies of it
AUTOML_EPOCHS = 12
AUTOML_QUANTISED_EPOCHS = 2
CUSTOM_SEED = 11
CUSTOM_EPOCHS = 12
CUSTOM_VARIANTS = 12
BATCH_SIZE = 32

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Arrays = dict[str, Floats]
Variables = dict[str, Any]  # name -> tf.Variable: TensorFlow has no types
Tap = Callable[[str, Any], Any]  # sees every tensor that is quantised; returns it or its stand-in


# ---------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class Split:
    """Pictures of digits and their classes."""

    pictures: list[Image.Image]
    """RGB, 64x64, white ink on black."""
    pixels: Floats
    """[count, 1, 8, 8]: what the pictures were drawn from, 0 to 1."""
    classes: Indices
    """[count], 0 to 9."""


def load_splits() -> tuple[Split, Split]:
    """Return the training and the test split."""
    digits = load_digits()
    pictures = [draw(pixels) for pixels in digits.images]
    pixels = (digits.images[:, np.newaxis] / 16).astype(np.float32)
    classes = digits.target.astype(np.int64)
    cut = TRAIN_COUNT
    return (
        Split(pictures[:cut], pixels[:cut], classes[:cut]),
        Split(pictures[cut:], pixels[cut:], classes[cut:]),
    )


def draw(pixels: npt.NDArray[np.float64]) -> Image.Image:
    """Draw 8x8 values of 0 (paper) to 16 (ink) as a picture that a person can read."""
    grey = Image.fromarray(np.rint(pixels * 255 / 16).astype(np.uint8))
    enlarged = grey.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.BICUBIC)
    return enlarged.convert("RGB")


def automl_input(picture: Image.Image, resample: Image.Resampling) -> Bytes:
    """Return a picture as the AutoML model takes it: uint8 [32, 32, 3], the bytes as they are."""
    resized = picture.convert("RGB").resize((AUTOML_SIZE, AUTOML_SIZE), resample)
    return np.asarray(resized, dtype=np.uint8)


def custom_input(picture: Image.Image, resample: Image.Resampling) -> Floats:
    """Return a picture as the custom model takes it: float32 [1, 8, 8] of 0 to 1, grey."""
    resized = picture.convert("L").resize((CUSTOM_SIZE, CUSTOM_SIZE), resample)
    return (np.asarray(resized, dtype=np.float32) / np.float32(255))[np.newaxis]


def draw_filter(rng: np.random.Generator) -> Image.Resampling:
    """Return any of the filters: trained on all, a model does not mind which one a server uses."""
    return list(FILTERS.values())[rng.integers(len(FILTERS))]


def vary(
    split: Split, variants: int, rng: np.random.Generator
) -> tuple[list[Image.Image], Indices]:
    """Return the pictures and their distorted copies, ``variants`` of each in all."""
    pictures = list(split.pictures)
    for _ in range(variants - 1):
        pictures += [distort(picture, rng) for picture in split.pictures]
    return pictures, np.tile(split.classes, variants)


def distort(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture turned, slanted, scaled and moved a little, as other writers would."""
    angle = np.deg2rad(rng.uniform(-12, 12))
    slant = rng.uniform(-0.15, 0.15)
    scale = rng.uniform(0.9, 1.1, size=2)
    shift = rng.uniform(-4, 4, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1.0, slant], [0.0, 1.0]]) @ np.diag(1 / scale)
    centre = np.full(2, PICTURE_SIZE / 2)
    offset = centre - matrix @ centre + shift
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    return picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        tuple(float(value) for value in coefficients),
        Image.Resampling.BILINEAR,
    )


# ---------------------------------------------------------------------------------------- training


def progress(title: str, done: int, total: int, note: str) -> None:
    """Draw a progress bar on stderr, and end its line at the last step."""
    width = 30
    filled = width * done // total
    bar = "#" * filled + "." * (width - filled)
    end = "\n" if done == total else ""
    print(f"\r{title:<22} [{bar}] {done}/{total} {note}", end=end, file=sys.stderr, flush=True)


def batches(count: int, rng: np.random.Generator) -> Iterator[Indices]:
    """Yield one epoch of shuffled indices; the last, shorter batch is left out."""
    order = rng.permutation(count)
    for start in range(0, count - BATCH_SIZE + 1, BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]


def train(
    title: str,
    variables: Variables,
    logits: Callable[[Any], Any],
    data: tuple[npt.NDArray[Any], Indices],
    *,
    epochs: int,
    rate: float,
    rng: np.random.Generator,
) -> None:
    """Minimise the cross entropy with Adam and a cosine-shaped rate; changes ``variables``."""
    inputs, classes = data
    steps = epochs * (len(inputs) // BATCH_SIZE)
    optimiser = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(rate, steps))
    weights = list(variables.values())
    optimiser.build(weights)

    def step(batch: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits(batch))
            loss = tf.reduce_mean(losses)
        optimiser.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    compiled = tf.function(step)
    for epoch in range(epochs):
        losses = [
            float(compiled(tf.constant(inputs[chosen]), tf.constant(classes[chosen])))
            for chosen in batches(len(inputs), rng)
        ]
        progress(title, epoch + 1, epochs, f"loss {np.mean(losses):.3f}")


def initial(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> Variables:
    """Return He-initialised weights, with a bias of zeros for each; depthwise kernels end in 1."""
    variables: Variables = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[:2])) if shape[-1] == 1 else int(np.prod(shape[:-1]))
        values = rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        outputs = shape[2] if shape[-1] == 1 else shape[-1]
        variables[f"{name}/weights"] = tf.Variable(values)
        variables[f"{name}/bias"] = tf.Variable(np.zeros(outputs, np.float32))
    return variables


# ----------------------------------------------------------------------- the AutoML-like model

# A very small MobileNet v2: a strided convolution, three inverted residuals (expand, depthwise,
# project; the second has the shortcut), a 1x1 convolution, the mean, and one fully connected layer.
AUTOML_SHAPES: dict[str, tuple[int, ...]] = {
    "stem": (3, 3, 3, 16),
    "block1/expand": (1, 1, 16, 32),
    "block1/depthwise": (3, 3, 32, 1),
    "block1/project": (1, 1, 32, 16),
    "block2/expand": (1, 1, 16, 48),
    "block2/depthwise": (3, 3, 48, 1),
    "block2/project": (1, 1, 48, 16),
    "block3/expand": (1, 1, 16, 48),
    "block3/depthwise": (3, 3, 48, 1),
    "block3/project": (1, 1, 48, 24),
    "head": (1, 1, 24, 64),
    "scores": (64, 10),
}
AUTOML_STRIDES = {"block1": 2, "block2": 1, "block3": 2}


def automl_logits(weights: dict[str, Any], image: Any, tap: Tap) -> Any:
    """Return the logits [batch, 10] of an image [batch, 32, 32, 3] that holds (byte - 128) / 127.

    ``tap`` is given every weight and every activation by name: it watches them, or rounds them as
    the quantised model will.
    """

    def layer(name: str, value: Any, stride: int = 1, relu: bool = True) -> Any:
        kernel = tap(f"{name}/weights", weights[f"{name}/weights"])
        if name.endswith("depthwise"):
            value = tf.nn.depthwise_conv2d(value, kernel, [1, stride, stride, 1], "SAME")
        else:
            value = tf.nn.conv2d(value, kernel, stride, "SAME")
        value = tf.nn.bias_add(value, weights[f"{name}/bias"])
        return tap(name, tf.nn.relu6(value) if relu else value)

    value = layer("stem", image, stride=2)  # [batch, 16, 16, 16]
    for block, stride in AUTOML_STRIDES.items():
        before = value
        value = layer(f"{block}/expand", value)
        value = layer(f"{block}/depthwise", value, stride=stride)
        value = layer(f"{block}/project", value, relu=False)
        if block == "block2":
            value = tap(f"{block}/add", before + value)  # [batch, 8, 8, 16]
    value = layer("head", value)  # [batch, 4, 4, 64]
    value = tap("mean", tf.reduce_mean(value, axis=[1, 2]))  # [batch, 64]
    kernel = tap("scores/weights", weights["scores/weights"])
    return tap("logits", tf.matmul(value, kernel) + weights["scores/bias"])  # [batch, 10]


def fake_quantise(ranges: dict[str, tuple[float, float]]) -> Tap:
    """Return a tap that rounds to 256 steps; a weight without a range gets its own extremes."""

    def tap(name: str, value: Any) -> Any:
        if name in ranges:
            low, high = ranges[name]
        else:
            low, high = tf.reduce_min(value), tf.reduce_max(value)
        return tf.quantization.fake_quant_with_min_max_vars(value, low, high)

    return tap


def measure_ranges(weights: dict[str, Any], images: Floats) -> dict[str, tuple[float, float]]:
    """Return the range of every activation over the images; it always holds zero."""
    ranges: dict[str, tuple[float, float]] = {}

    def tap(name: str, value: Any) -> Any:
        if not name.endswith("/weights"):
            ranges[name] = (min(0.0, float(np.min(value))), max(0.0, float(np.max(value))))
        return value

    automl_logits(weights, tf.constant(images), tap)
    return ranges


def train_automl(split: Split) -> bytes:
    """Train the AutoML-like model, first in float and then rounded; return the TFLite file."""
    rng = np.random.default_rng(AUTOML_SEED)
    pictures, classes = vary(split, AUTOML_VARIANTS, rng)
    images = np.stack([automl_input(picture, draw_filter(rng)) for picture in pictures])
    reals = (images.astype(np.float32) - np.float32(128)) / np.float32(127)
    data = (reals, classes)
    variables = initial(AUTOML_SHAPES, rng)
    train(
        "AutoML-like, float",
        variables,
        lambda image: automl_logits(variables, image, lambda _, value: value),
        data,
        epochs=AUTOML_EPOCHS,
        rate=4e-3,
        rng=rng,
    )
    ranges = measure_ranges(variables, reals)
    train(
        "AutoML-like, quantised",
        variables,
        lambda image: automl_logits(variables, image, fake_quantise(ranges)),
        data,
        epochs=AUTOML_QUANTISED_EPOCHS,
        rate=5e-4,
        rng=rng,
    )
    return write_tflite({name: value.numpy() for name, value in variables.items()}, ranges)


def write_tflite(weights: Arrays, ranges: dict[str, tuple[float, float]]) -> bytes:
    """Return a uint8 TFLite file of the kind that AutoML writes.

    That kind is the older one: uint8 from end to end, one scale a tensor, no signatures. Today's
    ``from_keras_model`` gives int8 inside with a QUANTIZE at both ends instead; only the converter
    of TensorFlow 1's graphs still makes the older one, from a graph with its rounding written in.
    """
    known = dict(ranges)
    for name, values in weights.items():
        if name.endswith("/weights"):
            known[name] = (min(0.0, float(values.min())), max(0.0, float(values.max())))
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        shape = (1, AUTOML_SIZE, AUTOML_SIZE, 3)
        image = tf.compat.v1.placeholder(tf.float32, shape, name="image")
        constants = {name: tf.constant(values) for name, values in weights.items()}
        logits = automl_logits(constants, image, fake_quantise(known))
        scores = tf.nn.softmax(logits, name="scores")
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, [image], [scores])
        converter.inference_type = tf.uint8
        converter.quantized_input_stats = {"image": (128, 127)}  # real = (byte - 128) / 127
        return bytes(converter.convert())


# ----------------------------------------------------------------------------- the custom model

CUSTOM_SHAPES: dict[str, tuple[int, ...]] = {
    "conv1": (3, 3, 1, 32),
    "conv2": (3, 3, 32, 32),
    "conv3": (3, 3, 32, 48),
    "dense": (2 * 2 * 48, 64),
    "classes": (64, 10),
}


def custom_logits(weights: dict[str, Any], image: Any, keep: Callable[[Any], Any]) -> Any:
    """Return the logits [batch, 10] of a grey image [batch, 8, 8, 1]; ``keep`` is the dropout."""

    def conv(name: str, value: Any) -> Any:
        value = tf.nn.conv2d(value, weights[f"{name}/weights"], 1, "SAME")
        return tf.nn.relu(tf.nn.bias_add(value, weights[f"{name}/bias"]))

    value = conv("conv2", conv("conv1", image))  # [batch, 8, 8, 32]
    value = tf.nn.max_pool2d(value, 2, 2, "VALID")  # [batch, 4, 4, 32]
    value = tf.nn.max_pool2d(conv("conv3", value), 2, 2, "VALID")  # [batch, 2, 2, 48]
    value = keep(tf.reshape(value, [-1, 2 * 2 * 48]))
    value = tf.nn.relu(tf.matmul(value, weights["dense/weights"]) + weights["dense/bias"])
    return tf.matmul(keep(value), weights["classes/weights"]) + weights["classes/bias"]


def train_custom(split: Split) -> bytes:
    """Train the custom model on distorted copies as well; return the ONNX file."""
    rng = np.random.default_rng(CUSTOM_SEED)
    pictures, classes = vary(split, CUSTOM_VARIANTS, rng)
    rows = [custom_input(picture, draw_filter(rng)) for picture in pictures]
    images = np.stack(rows).transpose(0, 2, 3, 1)  # [count, 8, 8, 1]
    variables = initial(CUSTOM_SHAPES, rng)
    train(
        "custom",
        variables,
        lambda image: custom_logits(variables, image, lambda value: tf.nn.dropout(value, 0.3)),
        (images, classes),
        epochs=CUSTOM_EPOCHS,
        rate=2e-3,
        rng=rng,
    )
    weights = {name: value.numpy() for name, value in variables.items()}
    model = write_onnx(weights)
    some = images[: len(split.pictures)]
    expected = tf.nn.softmax(custom_logits(variables, tf.constant(some), lambda value: value))
    error = float(np.abs(run_onnx(model, some.transpose(0, 3, 1, 2)) - expected.numpy()).max())
    if error > 1e-5:
        raise RuntimeError(f"the ONNX file differs from TensorFlow by {error:.2g}")
    return model


def write_onnx(weights: Arrays) -> bytes:
    """Return the custom model as ONNX: channels first, any batch size, softmax inside."""
    kernels = {
        name: numpy_helper.from_array(
            np.ascontiguousarray(weights[f"{name}/weights"].transpose(3, 2, 0, 1)),
            f"{name}.weight",
        )
        for name in ("conv1", "conv2", "conv3")
    }
    # Flatten sees [48, 2, 2] here and [2, 2, 48] in TensorFlow: the rows of `dense` move with it.
    dense = weights["dense/weights"].reshape(2, 2, 48, 64).transpose(2, 0, 1, 3).reshape(-1, 64)
    matrices = {
        "dense": numpy_helper.from_array(np.ascontiguousarray(dense), "dense.weight"),
        "classes": numpy_helper.from_array(weights["classes/weights"], "classes.weight"),
    }
    biases = [
        numpy_helper.from_array(weights[f"{name}/bias"], f"{name}.bias") for name in CUSTOM_SHAPES
    ]

    def conv(name: str, source: str) -> list[onnx.NodeProto]:
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        return [
            helper.make_node("Conv", inputs, [f"{name}.sum"], name=name, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"{name}.sum"], [f"{name}.out"], name=f"{name}.relu"),
        ]

    def pool(name: str, source: str) -> onnx.NodeProto:
        size = [2, 2]
        return helper.make_node(
            "MaxPool", [source], [f"{name}.out"], name=name, kernel_shape=size, strides=size
        )

    nodes = [
        *conv("conv1", "image"),
        *conv("conv2", "conv1.out"),
        pool("pool2", "conv2.out"),
        *conv("conv3", "pool2.out"),
        pool("pool3", "conv3.out"),
        helper.make_node("Flatten", ["pool3.out"], ["flat"], name="flatten"),
        helper.make_node(
            "Gemm", ["flat", "dense.weight", "dense.bias"], ["dense.sum"], name="dense"
        ),
        helper.make_node("Relu", ["dense.sum"], ["dense.out"], name="dense.relu"),
        helper.make_node(
            "Gemm", ["dense.out", "classes.weight", "classes.bias"], ["logits"], name="classes"
        ),
        helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1),
    ]
    shape: list[str | int | None] = ["batch", 1, CUSTOM_SIZE, CUSTOM_SIZE]
    graph = helper.make_graph(
        nodes,
        "digits_custom",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [*kernels.values(), *matrices.values(), *biases],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, producer_name="crossfade"
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


# ------------------------------------------------------------------------------ running, measuring


def run_onnx(model: bytes, images: Floats) -> Floats:
    """Return the probabilities [batch, 10] of images [batch, 1, 8, 8]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"image": images})[0], dtype=np.float32)


def run_tflite(model: bytes, images: Bytes) -> Floats:
    """Return the scores [batch, 10], 0 to 255/256, of images [batch, 32, 32, 3], one at a time.

    Raises:
        RuntimeError: The file is not what an AutoML Vision Edge export looks like.
    """
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    expected = [
        ("image", [1, AUTOML_SIZE, AUTOML_SIZE, 3], np.uint8, float(np.float32(1 / 127)), 128),
        ("scores", [1, len(LABELS)], np.uint8, 1 / 256, 0),
    ]
    for detail, wanted in zip((source, target), expected, strict=True):
        found = (detail["name"], detail["shape"].tolist(), detail["dtype"], *detail["quantization"])
        if found != wanted:
            raise RuntimeError(f"the TFLite file has {found} instead of {wanted}")
    if interpreter.get_signature_list():
        raise RuntimeError("the TFLite file has signatures; AutoML's have none")
    rows: list[Floats] = []
    for image in images:
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(target["index"])[0].astype(np.float32) / 256)
    return np.stack(rows)


@dataclass(frozen=True)
class Measured:
    """What both models say about the test split, by the name of the resize filter."""

    automl: dict[str, Floats]
    custom: dict[str, Floats]
    raw: Floats
    """The custom model's answers to the 8x8 pixels themselves, without a picture between."""

    def least(self, classes: Indices) -> Floats:
        """Return [count]: the lowest score of the right class, over both models and all filters."""
        rows = np.arange(len(classes))
        answers = (*self.automl.values(), *self.custom.values(), self.raw)
        lowest: Floats = np.stack([answer[rows, classes] for answer in answers]).min(axis=0)
        return lowest


def measure(automl: bytes, custom: bytes, split: Split) -> Measured:
    """Run both files over the split with every resize filter."""
    measured = Measured({}, {}, run_onnx(custom, split.pixels))
    for done, (name, resample) in enumerate(FILTERS.items()):
        pictures = split.pictures
        measured.automl[name] = run_tflite(
            automl, np.stack([automl_input(picture, resample) for picture in pictures])
        )
        measured.custom[name] = run_onnx(
            custom, np.stack([custom_input(picture, resample) for picture in pictures])
        )
        progress("measuring", done + 1, len(FILTERS), "")
    return measured


def accuracy(scores: Floats, classes: Indices) -> float:
    """Return the share of rows whose highest score is the right class."""
    return float((scores.argmax(axis=1) == classes).mean())


def choose(measured: Measured, classes: Indices) -> list[tuple[str, int]]:
    """Return (file name, index) of the sample pictures; both models get each of them right.

    Ten are the first of their label that both models are sure of; two more are those that the
    AutoML-like model doubts most, so that the two models visibly differ.
    """
    least = measured.least(classes)
    sure = np.flatnonzero(least >= 0.9)
    first = [int(sure[classes[sure] == label][0]) for label in range(len(LABELS))]
    right = np.flatnonzero(least > 0.5)  # above a half, a class cannot be outvoted
    doubted: list[int] = []
    score = measured.automl[DEFAULT_FILTER][np.arange(len(classes)), classes]
    for index in right[np.argsort(score[right], kind="stable")]:
        if len(doubted) < 2 and classes[index] not in classes[doubted]:
            doubted.append(int(index))
    return [
        *((f"{LABELS[classes[index]]}_0.png", index) for index in first),
        *((f"{LABELS[classes[index]]}_1.png", index) for index in doubted),
    ]


def summarise(measured: Measured, classes: Indices, sizes: dict[str, int]) -> str:
    """Return the result as the Markdown that README.md shows."""
    lines = [
        "| resize filter | digits_automl | digits_custom | half and half |",
        "|---|---|---|---|",
    ]
    for name in FILTERS:
        automl, custom = measured.automl[name], measured.custom[name]
        shares = [accuracy(s, classes) for s in (automl, custom, automl + custom)]
        lines.append(f"| {name} | " + " | ".join(f"{share:.4f}" for share in shares) + " |")
    lines.append(f"| none: 8x8 pixels | | {accuracy(measured.raw, classes):.4f} | |")
    automl, custom = measured.automl[DEFAULT_FILTER], measured.custom[DEFAULT_FILTER]
    wrong = [scores.argmax(axis=1) != classes for scores in (automl, custom)]
    lines += [
        "",
        f"Wrong with {DEFAULT_FILTER}: digits_automl {wrong[0].sum()}, digits_custom "
        f"{wrong[1].sum()}, both {(wrong[0] & wrong[1]).sum()}, of {len(classes)}.",
    ]
    lines += ["", *(f"- `{name}`: {size:,} bytes" for name, size in sizes.items())]
    return "\n".join(lines)


def png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def metadata() -> str:
    """Return tflite_metadata.json with the keys that Vertex AI documents."""
    shape = [1, AUTOML_SIZE, AUTOML_SIZE, 3]
    content = {
        "batchSize": 1,
        "imageChannels": 3,
        "imageHeight": AUTOML_SIZE,
        "imageWidth": AUTOML_SIZE,
        "inferenceType": "QUANTIZED_UINT8",
        "inputShape": shape,
        "inputTensor": "image",
        "inputType": "QUANTIZED_UINT8",
        "outputTensor": "scores",
        "outputTensorRepresentation": ["class_confidences"],
        "supportedTfVersions": [".".join(tf.__version__.split(".")[:2])],
    }
    return json.dumps(content, indent=4) + "\n"


def main() -> None:
    """Train both models, measure them, and write every file of this folder but the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    out: Path = parser.parse_args().out
    started = time.monotonic()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(AUTOML_SEED)

    training, testing = load_splits()
    automl = train_automl(training)
    custom = train_custom(training)
    measured = measure(automl, custom, testing)
    files = {
        # No newline at the end, as in some of AutoML's.
        "models/digits_automl/1/dict.txt": "\n".join(LABELS).encode(),
        "models/digits_automl/1/model.tflite": automl,
        "models/digits_automl/1/tflite_metadata.json": metadata().encode(),
        "models/digits_custom/1/model.onnx": custom,
        "models/digits_custom/labels.txt": ("\n".join(LABELS) + "\n").encode(),
    }
    for name, index in choose(measured, testing.classes):
        files[f"images/{name}"] = png(testing.pictures[index])
    for old in out.glob("images/*.png"):
        old.unlink()
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    sizes = {name: len(content) for name, content in files.items()}
    print(summarise(measured, testing.classes, sizes))
    print(f"\n{len(testing.classes)} test digits, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
