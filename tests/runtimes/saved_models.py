"""Builds tiny SavedModels with TensorFlow; to be called only where TensorFlow may be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.savedmodel.library import tensorflow


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
