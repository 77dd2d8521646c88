"""Weights of ONNX and TFLite files, and parity of their ports with their own libraries."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.savedmodel.library import tensorflow
from crossfade.training.torch_port.coverage import coverage
from crossfade.training.torch_port.module import Ported, port
from crossfade.training.torch_port.parity import Report, compare
from crossfade.training.torch_port.probes import probes
from crossfade.training.torch_port.proof import reference
from crossfade.training.weights.graph import Graph
from crossfade.training.weights.inventory import inventory
from crossfade.training.weights.read import read
from crossfade.training.weights.roles import Role


def compared(path: Path, ported: Ported | None = None) -> tuple[Graph, Report]:
    graph = read(path)
    made = ported or port(graph)
    return graph, compare(made, reference(path, graph), probes(graph, side=40))


def write_onnx(path: Path) -> None:
    """Every kind of weight, and the paddings that PyTorch does not have."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 0.4, shape).astype(np.float32)

    weights = {
        "k1": normal(6, 3, 3, 3),
        "b1": normal(6),
        "gamma": normal(6),
        "beta": normal(6),
        "mean": normal(6),
        "variance": random.uniform(0.5, 1.5, 6).astype(np.float32),
        "k2": normal(12, 1, 3, 3),
        "k3": normal(8, 6, 2, 2),
        "dense": normal(4, 8),
        "dense_bias": normal(4),
        "unused": normal(2, 2),
        "scale": np.float32([1 / 127.5]),
        "end": np.int64([0, -1]),
    }
    node = helper.make_node
    nodes = [
        node("Mul", ["image", "scale"], ["scaled"]),
        node("Conv", ["scaled", "k1", "b1"], ["c1"], strides=[2, 2], auto_pad="SAME_LOWER"),
        node(
            "BatchNormalization", ["c1", "gamma", "beta", "mean", "variance"], ["n"], epsilon=0.01
        ),
        node("Clip", ["n", "", ""], ["clipped"]),
        node("LeakyRelu", ["clipped"], ["r"], alpha=0.2),
        node("MaxPool", ["r"], ["p"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("Conv", ["p", "k2"], ["c2"], group=6, pads=[0, 1, 2, 1]),
        node("HardSwish", ["c2"], ["h"]),
        node("Conv", ["h", "k3"], ["c3"], group=2, dilations=[2, 1]),
        node("AveragePool", ["c3"], ["a"], kernel_shape=[2, 2], pads=[1, 0, 0, 1], strides=[1, 1]),
        node("GlobalAveragePool", ["a"], ["g"]),
        node("Reshape", ["g", "end"], ["flat"]),
        node("Gemm", ["flat", "dense", "dense_bias"], ["logits"], transB=1),
        node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [image], [scores], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(path)
    return path


def test_onnx_roles_and_parity(onnx_path: Path) -> None:
    graph, report = compared(onnx_path)
    found = inventory(graph)
    assert {w.name: w.role for w in found.weights} == {
        "k1": Role.CONV_KERNEL,
        "k2": Role.DEPTHWISE_KERNEL,
        "k3": Role.CONV_KERNEL,
        "b1": Role.BIAS,
        "dense": Role.DENSE_KERNEL,
        "dense_bias": Role.BIAS,
        "gamma": Role.BN_GAMMA,
        "beta": Role.BN_BETA,
        "mean": Role.BN_MEAN,
        "variance": Role.BN_VARIANCE,
    }
    assert set(found.unread) == {"unused"}
    assert report.passed, report.wrong
    assert {layer.name for layer in report.layers} >= {"k1", "k2", "k3", "dense"}


def test_onnx_mistakes_are_caught(onnx_path: Path) -> None:
    graph = read(onnx_path)
    ported = port(graph)
    ported.layers.k1.padding = "SAME"  # the odd pixel on the other side
    assert compared(onnx_path, ported)[1].wrong[0] == "k1"
    ported = port(graph)
    ported.layers.gamma.eps = 1e-5
    assert compared(onnx_path, ported)[1].wrong[0] == "gamma"


def convert(small_net: Path, *, eight_bits: bool) -> bytes:
    tf = tensorflow()
    loaded = tf.saved_model.load(str(small_net))
    fixed = tf.function(
        lambda image: loaded.signatures["serving_default"](image=image),
        input_signature=[tf.TensorSpec([1, 40, 40, 3], tf.float32, name="image")],
    ).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([fixed], loaded)
    if eight_bits:
        random = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [random.uniform(0, 255, (1, 40, 40, 3)).astype(np.float32)] for _ in range(8)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    content: bytes = converter.convert()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("eight_bits", [False, True])
def test_tflite_roles_and_parity(eight_bits: bool, small_net: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(small_net, eight_bits=eight_bits))
    graph, report = compared(path)
    found = inventory(graph)
    roles = Counter(w.role for w in found.weights)
    assert (roles[Role.CONV_KERNEL], roles[Role.DEPTHWISE_KERNEL]) == (5, 2)
    assert roles[Role.DENSE_KERNEL] == 1
    assert all(w.value.dtype == np.float32 for w in found.weights)
    assert coverage(found, port(graph).carried).complete
    assert not report.wrong
    if not eight_bits:
        assert report.passed


def test_what_is_no_export(tmp_path: Path) -> None:
    for name, content in (("a.tflite", b"x" * 64), ("b.onnx", b"\xff" * 64)):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(LoadFailed) as caught:
            read(path)
        assert str(tmp_path) not in caught.value.message
    (tmp_path / "c.tflite").write_bytes(b"\x10\0\0\0TFL3" + b"\xff" * 64)
    with pytest.raises(LoadFailed, match="damaged"):
        read(tmp_path / "c.tflite")
    with pytest.raises(InvalidArgument, match="there are several models"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InvalidArgument, match=r"from a SavedModel's folder, a \.tflite file"):
        read(tmp_path / "notes.txt")


def test_one_weight_that_is_read_twice_is_one_parameter(tmp_path: Path) -> None:
    kernel = numpy_helper.from_array(np.eye(4, dtype=np.float32) * 2, "kernel")
    node = helper.make_node
    graph = helper.make_graph(
        [node("MatMul", ["x", "kernel"], ["h"]), node("MatMul", ["h", "kernel"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [kernel],
    )
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )
    ported = port(read(tmp_path))  # a version's folder
    assert sum(1 for _ in ported.parameters()) == 1
    assert torch.equal(ported(torch.ones(1, 4)), torch.full((1, 4), 4.0))
