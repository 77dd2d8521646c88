"""The benchmark's models, their load requests and the answers that bare ONNX Runtime gives.

``addsub`` is Triton's sample model ``simple``: so small that a request costs what the server costs.
``mlp`` is a perceptron of 32, 64 and 8 numbers, such as tabular data gets.
``cnn`` is MobileNetV2 at 224 pixels with random weights: a 600 kB request and about 10 ms of work.

Run as a program it writes everything into a workspace, in a process of its own so that the harness
never imports ONNX Runtime (what it maps would be shared with a server and lower its PSS)::

    python -m crossfade.benchmarks.models .bench
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2

from crossfade.benchmarks.framing import frame
from crossfade.benchmarks.onnx_session import open_session
from crossfade.benchmarks.workspace import Workspace

Array = npt.NDArray[np.generic]

REFERENCE_COUNT = 8
SEED = 20240611
PICTURE_SIZE = 224
CLASS_COUNT = 1000
OPSET = 17
IR_VERSION = 8  # old enough for every ONNX Runtime that a peer may pin

DATATYPES: Mapping[str, str] = {"int32": "INT32", "float32": "FP32"}

# MobileNetV2, width 1.0: expansion, output channels, repeats, first stride.
MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def make_addsub() -> onnx.ModelProto:
    """Build ``addsub``: the sum and the difference of two rows of 16 integers."""
    shape: Sequence[str | int | None] = ["batch", 16]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, shape)
        for name in ("INPUT0", "INPUT1")
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, shape)
        for name in ("OUTPUT0", "OUTPUT1")
    ]
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return _model(helper.make_graph(nodes, "addsub", inputs, outputs))


def make_mlp() -> onnx.ModelProto:
    """Build ``mlp``: 32 floats, a hidden layer of 64, 8 scores, with random weights."""
    rng = np.random.default_rng(SEED)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(shape[0])
        return numpy_helper.from_array(values.astype(np.float32), name)

    nodes = [
        helper.make_node("Gemm", ["features", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["positive"]),
        helper.make_node("Gemm", ["positive", "w2", "b2"], ["scores"]),
    ]
    row: Sequence[str | int | None] = ["batch", 32]
    scores: Sequence[str | int | None] = ["batch", 8]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, row)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, scores)],
        initializer=[weight("w1", 32, 64), weight("b1", 64), weight("w2", 64, 8), weight("b2", 8)],
    )
    return _model(graph)


class _Network:
    """A graph under construction, one layer after the other."""

    def __init__(self, source: str, rng: np.random.Generator) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.tail = source
        self._rng = rng

    def _weight(self, name: str, shape: tuple[int, ...], deviation: float) -> str:
        values = (self._rng.standard_normal(shape) * deviation).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> None:
        """Append a node and make its output the tail."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self.tail = name

    def convolution(
        self, channels_in: int, channels: int, *, size: int, stride: int, groups: int, relu6: bool
    ) -> None:
        """Append a convolution, with its batch normalisation folded into weight and bias."""
        name = f"conv_{len(self.nodes)}"
        fan_in = channels_in // groups * size * size
        deviation = float(np.sqrt((2.0 if relu6 else 1.0) / fan_in))
        weight = self._weight(f"{name}_w", (channels, channels_in // groups, size, size), deviation)
        bias = self._weight(f"{name}_b", (channels,), 0.05)
        self.add(
            "Conv",
            [self.tail, weight, bias],
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
            group=groups,
        )
        if relu6:
            self.add("Clip", [self.tail, "zero", "six"])

    def classifier(self, features: int, classes: int) -> None:
        """Append pooling and the fully connected layer."""
        self.add("GlobalAveragePool", [self.tail])
        self.add("Flatten", [self.tail])
        weight = self._weight("classifier_w", (features, classes), float(np.sqrt(1.0 / features)))
        bias = self._weight("classifier_b", (classes,), 0.05)
        self.add("Gemm", [self.tail, weight, bias])


def make_cnn() -> onnx.ModelProto:
    """Build ``cnn``: MobileNetV2 (Sandler et al. 2018), width 1.0, with random weights."""
    network = _Network("pixels", np.random.default_rng(SEED))
    for name, value in (("zero", 0.0), ("six", 6.0)):
        network.weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
    network.convolution(3, 32, size=3, stride=2, groups=1, relu6=True)
    channels = 32
    for expansion, stage_channels, repeats, first_stride in MOBILENET_STAGES:
        for repeat in range(repeats):
            source, hidden = network.tail, channels * expansion
            stride = first_stride if repeat == 0 else 1
            if expansion > 1:
                network.convolution(channels, hidden, size=1, stride=1, groups=1, relu6=True)
            network.convolution(hidden, hidden, size=3, stride=stride, groups=hidden, relu6=True)
            network.convolution(hidden, stage_channels, size=1, stride=1, groups=1, relu6=False)
            if stride == 1 and channels == stage_channels:
                network.add("Add", [source, network.tail])
            channels = stage_channels
    network.convolution(channels, 1280, size=1, stride=1, groups=1, relu6=True)
    network.classifier(1280, CLASS_COUNT)
    network.nodes[-1].output[0] = "scores"
    picture: Sequence[str | int | None] = ["batch", 3, PICTURE_SIZE, PICTURE_SIZE]
    row: Sequence[str | int | None] = ["batch", CLASS_COUNT]
    graph = helper.make_graph(
        network.nodes,
        "cnn",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, picture)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, row)],
        initializer=network.weights,
    )
    return _model(graph)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(
        graph,
        producer_name="crossfade benchmarks",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model)
    return model


def addsub_inputs(rng: np.random.Generator) -> dict[str, Array]:
    """Draw one request for ``addsub``: two arrays of shape [1, 16]."""
    return {
        name: rng.integers(-1_000_000, 1_000_000, (1, 16), dtype=np.int32)
        for name in ("INPUT0", "INPUT1")
    }


def mlp_inputs(rng: np.random.Generator) -> dict[str, Array]:
    """Draw one request for ``mlp``: one row of shape [1, 32]."""
    return {"features": rng.standard_normal((1, 32)).astype(np.float32)}


def cnn_inputs(rng: np.random.Generator) -> dict[str, Array]:
    """Draw one request for ``cnn``: one picture of shape [1, 3, 224, 224].

    Each picture has colour gradients of its own under the noise: the network averages plain noise
    away, and its answers would then be too alike to show that a batch returned a neighbour's row.
    """
    ramp = np.linspace(-1.0, 1.0, PICTURE_SIZE)
    across, down, level = rng.normal(0.0, 1.5, (3, 3, 1, 1))
    gradient = level + across * ramp[None, None, :] + down * ramp[None, :, None]
    noise = rng.normal(0.0, 0.5, (3, PICTURE_SIZE, PICTURE_SIZE))
    return {"pixels": (gradient + noise)[None].astype(np.float32)}


MAKERS: Mapping[
    str,
    tuple[Callable[[], onnx.ModelProto], Callable[[np.random.Generator], dict[str, Array]]],
] = {
    "addsub": (make_addsub, addsub_inputs),
    "mlp": (make_mlp, mlp_inputs),
    "cnn": (make_cnn, cnn_inputs),
}


def infer_request(model: str, inputs: Mapping[str, Array]) -> service_pb2.ModelInferRequest:
    """Make the Open Inference Protocol's request, with its data in ``raw_input_contents``."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=DATATYPES[str(array.dtype)], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def write_model(workspace: Workspace, model: str) -> None:
    """Write a model, its load request and its reference answers.

    Raises:
        ValueError: Two reference answers are too alike to tell one from the other.
    """
    make, draw_inputs = MAKERS[model]
    path = workspace.model_file(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make().SerializeToString(deterministic=True))

    rng = np.random.default_rng(SEED)
    requests = [draw_inputs(rng) for _ in range(REFERENCE_COUNT)]
    session = open_session(str(path))
    names = [output.name for output in session.get_outputs()]
    arrays: dict[str, Array] = {}
    for index, inputs in enumerate(requests):
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        arrays |= {f"{index}/input/{name}": array for name, array in inputs.items()}
        arrays |= {f"{index}/output/{name}": array for name, array in outputs.items()}
    for index in range(1, REFERENCE_COUNT):
        if not _differ(arrays[f"0/output/{names[0]}"], arrays[f"{index}/output/{names[0]}"]):
            raise ValueError(f"reference answers 0 and {index} of {model} are too alike")

    workspace.request_file(model).parent.mkdir(parents=True, exist_ok=True)
    workspace.request_file(model).write_bytes(
        frame(infer_request(model, requests[0]).SerializeToString())
    )
    np.savez(workspace.reference_file(model), allow_pickle=False, **arrays)


def _differ(left: Array, right: Array) -> bool:
    """Whether most elements differ by far more than the tolerance of an answer check."""
    difference = np.abs(left.astype(np.float64) - right.astype(np.float64))
    return bool(np.median(difference) > 0.01)


def main() -> None:
    """Write every model into the workspace that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    workspace = Workspace(parser.parse_args().workspace)
    for model in MAKERS:
        write_model(workspace, model)


if __name__ == "__main__":
    main()
