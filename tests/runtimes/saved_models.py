"""Builds tiny SavedModels with TensorFlow; to be called only where TensorFlow may be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.savedmodel.library import tensorflow

# Names of the dtypes that can be served, as TensorFlow has them.
KINDS = (
    "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "uint64", "bool", "string",
)  # fmt: skip


def affine(folder: Path) -> None:
    """y = 2x + 1 and m = 2x, FP32 [n, 3], by TensorFlow 2."""
    tf = tensorflow()

    class Affine(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.scale = tf.Variable(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"m": x * self.scale, "y": x * self.scale + 1.0}

    module = Affine()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def keras_in_a_module(folder: Path) -> Any:
    """y of x, FP32 [n, 4]: Keras 3's layers in a module of TensorFlow's; returns the function."""
    tf = tensorflow()
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)])
    model.build((None, 4))

    class Wrapped(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model = model

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
        def __call__(self, x: Any) -> Any:
            return {"y": self.model(x, training=False)}

    module = Wrapped()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    return module


def strings(folder: Path) -> None:
    """y = x in capitals, BYTES [n, 2], and the count of bytes as m, by TensorFlow 1."""
    tf = tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.string, [None, 2], name="x")
        outputs = {"y": tf.strings.upper(x), "m": tf.strings.length(x)}
        tf.compat.v1.saved_model.simple_save(session, str(folder), {"x": x}, outputs)


def heavy(folder: Path, megabytes: int) -> None:
    """y = x W, W random FP32, x [n, 256]."""
    tf = tensorflow()
    columns = megabytes * 1024
    table = np.random.default_rng(0).random((256, columns), dtype=np.float32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 256], name="x")
        w = tf.compat.v1.get_variable("w", initializer=table, use_resource=True)
        y = tf.matmul(x, w)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


def many(folder: Path) -> None:
    """One signature for each thing that an adapter may stumble over."""
    tf = tensorflow()

    class Many(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.scale = tf.Variable(2.0)
            keys, values = tf.constant(["a", "b"]), tf.constant([1, 2])
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(keys, values), -1
            )

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
        def look(self, s: Any) -> Any:
            return {"i": self.table.lookup(s), "echo": s}

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def any_rank(self, x: Any) -> Any:
            return {"y": x * self.scale, "s": tf.reduce_sum(x), "t": tf.constant("hi")}

        @tf.function(input_signature=[tf.TensorSpec([2, None], tf.bfloat16, name="x")])
        def half(self, x: Any) -> Any:
            return {"y": x + x}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
        def gather(self, x: Any) -> Any:
            return {"y": tf.gather(tf.constant([1.0, 2.0, 3.0]), x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def positive(self, x: Any) -> Any:
            check = tf.debugging.Assert(tf.reduce_all(x > 0), ["see /etc/secret/place"])
            with tf.control_dependencies([check]):
                return {"y": tf.identity(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.complex64, name="x")])
        def complicated(self, x: Any) -> Any:
            return {"y": tf.math.real(x)}

    module = Many()
    names = ("look", "any_rank", "half", "gather", "positive", "complicated")
    signatures = {name: getattr(module, name) for name in names}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def graph_with_input(folder: Path, name: str) -> None:
    """y = x + 1 whose input is called ``name``, by TensorFlow 1 with a reference variable."""
    tf = tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        one = tf.compat.v1.get_variable("one", initializer=1.0, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(folder), {name: x}, {"y": x + one})


def every_dtype(folder: Path) -> None:
    """A signature for each dtype; others have several inputs, any rank, or rules of their own."""
    tf = tensorflow()

    class Zoo(tf.Module):  # type: ignore[misc]
        """Functions that are made below, as signatures."""

    def of(kind: str) -> Any:
        @tf.function(input_signature=[tf.TensorSpec([None, 2], kind, name="x")])
        def answer(x: Any) -> Any:
            return {"same": tf.identity(x), "twice": tf.concat([x, x], axis=1)}

        return answer

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="a"),
            tf.TensorSpec([None], tf.int64, name="b"),
        ]
    )
    def two(a: Any, b: Any) -> Any:
        return {"c": a * tf.cast(b, tf.float32)[:, None], "d": b + 1}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def any_rank(x: Any) -> Any:
        return {"y": x / 3, "rank": tf.rank(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="x")])
    def scalar(x: Any) -> Any:
        return {"y": tf.range(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def roots(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x >= 0), ["negative"])]):
            return {"y": tf.sqrt(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="x")])
    def gather(x: Any) -> Any:
        return {"y": tf.gather(tf.constant([1.0, 2.0, 3.0]), x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def odd(x: Any) -> Any:
        return {"y": tf.math.log(x)}  # infinity of 0, NaN below

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s_bytes")])
    def lengths(s_bytes: Any) -> Any:
        return {"n": tf.strings.length(s_bytes), "s_bytes": tf.strings.join([s_bytes, s_bytes])}

    module = Zoo()
    signatures = {f"of_{kind}": of(kind) for kind in KINDS}
    signatures |= {"serving_default": two, "any_rank": any_rank, "scalar": scalar, "roots": roots}
    signatures |= {"gather": gather, "odd": odd, "lengths": lengths}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def curved(folder: Path) -> None:
    """y = softmax(tanh(x W)), FP32 [n, 16] to [n, 4]; and a table that no other format has."""
    tf = tensorflow()
    table = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)

    class Curved(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.table = tf.Variable(table)
            keys, values = tf.constant(["a", "b"]), tf.constant([1, 2])
            self.words = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(keys, values), -1
            )

        @tf.function(input_signature=[tf.TensorSpec([None, 16], tf.float32, name="x")])
        def answer(self, x: Any) -> Any:
            return {"y": tf.nn.softmax(tf.tanh(x @ self.table))}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
        def look(self, s: Any) -> Any:
            return {"i": self.words.lookup(s)}

    module = Curved()
    signatures = {"serving_default": module.answer, "look": module.look}
    tf.saved_model.save(module, str(folder), signatures=signatures)
