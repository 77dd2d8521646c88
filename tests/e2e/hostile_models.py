"""Model files that nobody should have to trust: broken, lying, endless, larger than any machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Build = Callable[[Path], None]
TRILLION = 1 << 40


def _onnx(content: Callable[[], bytes]) -> Build:
    return lambda folder: _written(folder / "model.onnx", content())


def _tflite(content: Callable[[], bytes]) -> Build:
    return lambda folder: _written(folder / "model.tflite", content())


def _written(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _affine() -> bytes:
    from tests.runtimes import onnx_models

    return onnx_models.affine()


def _huge_weights() -> bytes:
    """Weights of a trillion elements, of which none is there."""
    from onnx import TensorProto

    from tests.runtimes import onnx_models as m

    tensor = TensorProto(name="w", data_type=m.FLOAT, dims=[TRILLION])
    x, y = m.value("x", m.FLOAT, [1]), m.value("y", m.FLOAT, [TRILLION])
    return m.model([m.node("Add", "x w", "y")], [x], [y], [tensor])


def _huge_input() -> bytes:
    from tests.runtimes import onnx_models as m

    shape = [1 << 20, 1 << 20]
    x, y = m.value("x", m.FLOAT, shape), m.value("y", m.FLOAT, shape)
    return m.model([m.node("Relu", "x", "y")], [x], [y])


def _huge_run() -> bytes:
    """A run of one element that makes 64 GiB of it."""
    from tests.runtimes import onnx_models as m

    x, y = m.value("x", m.FLOAT, [1]), m.value("y", m.FLOAT, [1 << 17, 1 << 17])
    shape = m.weight("s", np.array([1 << 17, 1 << 17]))
    return m.model([m.node("Expand", "x s", "y")], [x], [y], [shape])


def _cycle() -> bytes:
    from tests.runtimes import onnx_models as m

    x, y = m.value("x", m.FLOAT, [1]), m.value("y", m.FLOAT, [1])
    return m.model(
        [m.node("Add", "x b", "a"), m.node("Add", "a x", "b"), m.node("Relu", "b", "y")], [x], [y]
    )


def _outside(place: str) -> Callable[[], bytes]:
    """Weights that lie in a file of the machine's."""

    def build() -> bytes:
        from onnx import TensorProto

        from tests.runtimes import onnx_models as m

        tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[64])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", place), ("offset", "0"), ("length", "64")):
            tensor.external_data.add(key=key, value=value)
        x, y = m.value("x", TensorProto.UINT8, [64]), m.value("y", TensorProto.UINT8, [64])
        return m.model([m.node("BitwiseOr", "x w", "y")], [x], [y], [tensor], opset=18)

    return build


def _deep() -> bytes:
    """Messages inside messages, deeper than any stack (graph, node, attribute, graph ...)."""
    inner = b""
    for _ in range(20_000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # attribute.g, node.attribute, graph.node
            inner = tag + _varint(len(inner)) + inner
    return b"\x08\x08\x3a" + _varint(len(inner)) + inner  # IR version 8, the graph


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _flat(change: Callable[[Any], None]) -> Callable[[], bytes]:
    """A TFLite model with something in it changed."""

    def build() -> bytes:
        from tests.runtimes import tflite_models as t

        graph = t.affine(2.0, 1.0)
        change(graph)
        return t.build(graph)

    return build


def _plain_tflite() -> bytes:
    return _flat(lambda _: None)()


def _tensor_out_of_range(graph: Any) -> None:
    graph.ops[0].inputs = [0, 1_000_000]


def _negative_tensor(graph: Any) -> None:
    graph.outputs = [-7]


def _huge_tensor(graph: Any) -> None:
    for tensor in (graph.tensors[0], graph.tensors[3], graph.tensors[4]):
        tensor.shape = [1 << 15, 1 << 15, 3]


ONNX: Mapping[str, Build] = {
    "onnx_empty": _onnx(lambda: b""),
    "onnx_truncated": _onnx(lambda: _affine()[:-25]),
    "onnx_wrong_magic": _onnx(lambda: b"GIF89a" + b"\xff" * 500),
    "onnx_huge_weights": _onnx(_huge_weights),
    "onnx_huge_input": _onnx(_huge_input),
    "onnx_huge_run": _onnx(_huge_run),
    "onnx_cycle": _onnx(_cycle),
    "onnx_traversal": _onnx(_outside("../../../../../../../../etc/passwd")),
    "onnx_absolute": _onnx(_outside("/etc/passwd")),
    "onnx_deep": _onnx(_deep),
}
TFLITE: Mapping[str, Build] = {
    "tflite_empty": _tflite(lambda: b""),
    "tflite_truncated": _tflite(lambda: _plain_tflite()[:-300]),
    "tflite_wrong_identifier": _tflite(lambda: _plain_tflite().replace(b"TFL3", b"EVIL")),
    "tflite_root_outside": _tflite(lambda: b"\xff\xff\xff\x7f" + _plain_tflite()[4:]),
    "tflite_tensor_outside": _tflite(_flat(_tensor_out_of_range)),
    "tflite_negative_tensor": _tflite(_flat(_negative_tensor)),
    "tflite_huge_tensor": _tflite(_flat(_huge_tensor)),
}


def _saved(change: Callable[[Path], None]) -> Build:
    def build(folder: Path) -> None:
        from tests.runtimes import saved_models

        saved_models.affine(folder)
        change(folder)

    return build


def _cut(folder: Path) -> None:
    file = folder / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-200])


def _no_variables(folder: Path) -> None:
    for file in (folder / "variables").iterdir():
        file.unlink()


def _graph(folder: Path, change: Callable[[Any], None]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(message.meta_graphs[0].graph_def)
    file.write_bytes(message.SerializeToString())


def _functions_that_call_themselves(graph: Any) -> None:
    """TensorFlow follows such calls until its stack is full (CVE-2022-23591; 2.21 still does)."""
    for function in graph.library.function:
        signature = function.signature
        node = function.node_def.add(name="again", op="StatefulPartitionedCall")
        node.input.extend(argument.name for argument in signature.input_arg)
        node.attr["f"].func.name = signature.name
        node.attr["Tin"].list.type.extend(argument.type for argument in signature.input_arg)
        node.attr["Tout"].list.type.extend(result.type for result in signature.output_arg)
        for index, result in enumerate(signature.output_arg):
            function.ret[result.name] = f"again:output:{index}"


def _huge_constant(graph: Any) -> None:
    for node in graph.node:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            del tensor.tensor_shape.dim[:]
            for _ in range(2):
                tensor.tensor_shape.dim.add(size=1 << 20)


def _unknown_op(graph: Any) -> None:
    graph.node[0].op = "FormatDisk"


SAVED_MODELS: Mapping[str, Build] = {
    "saved_empty": lambda folder: _written(folder / "saved_model.pb", b""),
    "saved_garbage": lambda folder: _written(folder / "saved_model.pb", b"\xff\x00[}" * 99),
    "saved_truncated": _saved(_cut),
    "saved_no_variables": _saved(_no_variables),
    "saved_recursion": _saved(lambda f: _graph(f, _functions_that_call_themselves)),
    "saved_huge_constant": _saved(lambda f: _graph(f, _huge_constant)),
    "saved_unknown_op": _saved(lambda f: _graph(f, _unknown_op)),
}


def flipped(content: bytes, seed: int) -> bytes:
    """One to eight bits of a file are others."""
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)
