"""Builds tiny ONNX models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BF16, STRING = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.BFLOAT16,
    TensorProto.STRING,
)
value = helper.make_tensor_value_info


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Sequence[Any] = (),
    *,
    domains: Sequence[tuple[str, int]] = (),
    opset: int = 17,
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializer=list(weights))
    opsets = [helper.make_opsetid(domain, version) for domain, version in (("", opset), *domains)]
    built = helper.make_model(graph, opset_imports=opsets)
    built.ir_version = 9
    return built.SerializeToString()


def weight(name: str, array: np.ndarray) -> Any:
    return numpy_helper.from_array(array, name)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def affine() -> bytes:
    """y = 2x + 1 and m = 2x, FP32 [n, 3]."""
    return model(
        [node("Mul", "x a", "m"), node("Add", "m b", "y")],
        [value("x", FLOAT, ["n", 3])],
        [value("y", FLOAT, ["n", 3]), value("m", FLOAT, ["n", 3])],
        [weight("a", np.float32([2])), weight("b", np.float32([1]))],
    )


def bfloat16() -> bytes:
    """y = 2x + 1 in BF16 and m = 2x in FP32, x BF16 [n, 3], shift FP32 [n, 3]."""
    return model(
        [
            node("Cast", "x", "f", to=FLOAT),
            node("Add", "f f", "m"),
            node("Add", "m shift", "g"),
            node("Cast", "g", "y", to=BF16),
        ],
        [value("x", BF16, ["n", 3]), value("shift", FLOAT, ["n", 3])],
        [value("y", BF16, ["n", 3]), value("m", FLOAT, ["n", 3])],
    )


def same(kind: int, shape: Sequence[Any] | None = ("n", 2), opset: int = 17) -> bytes:
    """y = x."""
    x, y = value("x", kind, shape), value("y", kind, shape)
    return model([node("Identity", "x", "y")], [x], [y], opset=opset)


def heavy(megabytes: int) -> bytes:
    """y = x W, W random FP32, x [n, 256]."""
    columns = megabytes * 1024
    table = np.random.default_rng(0).random((256, columns), dtype=np.float32)
    return model(
        [node("MatMul", "x w", "y")],
        [value("x", FLOAT, ["n", 256])],
        [value("y", FLOAT, ["n", columns])],
        [weight("w", table)],
    )


def expand() -> bytes:
    """y = ones of shape n, FP32, n INT64 [2]: a run takes whatever memory its input says."""
    return model(
        [node("Expand", "one n", "y")],
        [value("n", INT64, [2])],
        [value("y", FLOAT, ["a", "b"])],
        [weight("one", np.float32([1]))],
    )


def convolution() -> bytes:
    """A small network of convolutions, FP32 [n, 3, 16, 16] to [n, 8]."""
    random = np.random.default_rng(0)
    kernels = random.normal(size=(8, 3, 3, 3)).astype(np.float32)
    return model(
        [
            node("Conv", "x w", "c", kernel_shape=[3, 3]),
            node("Relu", "c", "r"),
            node("GlobalAveragePool", "r", "p"),
            node("Flatten", "p", "y"),
        ],
        [value("x", FLOAT, ["n", 3, 16, 16])],
        [value("y", FLOAT, ["n", 8])],
        [weight("w", kernels)],
    )
