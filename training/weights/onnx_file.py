"""An ONNX file's graph and initialisers in the common vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line
from crossfade.training.weights.graph import Array, Graph, Input, Node, Stored, ordered

_PLAIN: Final = {
    **{name: name.lower() for name in ("Add", "Sub", "Mul", "Div", "Pow", "Relu", "Sigmoid")},
    **{name: name.lower() for name in ("Tanh", "Sqrt", "Exp", "Log", "Abs", "Neg", "Floor")},
    **{name: name.lower() for name in ("Ceil", "Erf", "Softplus", "Where", "Equal", "Greater")},
    **{name: name.lower() for name in ("Less", "Shape", "Tile", "Identity", "Round", "Sign")},
    "HardSwish": "hard_swish",
    "Dropout": "identity",
    "IsNaN": "is_nan",
    "Selu": "selu",
    "GreaterOrEqual": "greater_equal",
    "LessOrEqual": "less_equal",
    "Not": "logical_not",
    "And": "logical_and",
    "Or": "logical_or",
    "Expand": "broadcast_to",
}
_REDUCTIONS: Final = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
}
_POOLS: Final = {"MaxPool": "max_pool", "AveragePool": "avg_pool"}
_AUTO: Final = {"SAME_UPPER": "SAME", "SAME_LOWER": "SAME_LOWER", "VALID": "VALID"}


def read(path: Path) -> Graph:
    """Reads a model; external data beside it is read, too.

    Raises:
        LoadFailed: it is no ONNX file that can be read.
        MissingExtra: onnx is not installed.
    """
    onnx = require("onnx", "convert", "reading weights of ONNX models")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:
        raise LoadFailed(f"not an ONNX model that can be read: {one_line(error, path)}") from error
    return _Reader(onnx, model).graph()


class _Reader:
    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.main = onnx, model.graph
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        array = onnx.numpy_helper.to_array
        self.constants: dict[str, Array] = {i.name: array(i) for i in self.main.initializer}
        self.origins = {name: name for name in self.constants}
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        for number, node in enumerate(self.main.node):
            self._translate(node.name or f"{node.op_type}_{number}", node)
        inputs = {i.name: self._input(i) for i in self.main.input if i.name not in self.constants}
        outputs = {o.name: o.name for o in self.main.output}
        nodes = ordered(self.nodes, outputs.values(), inputs)
        used = {name for node in nodes for name in node.inputs} | set(outputs.values())
        unread = {
            name: Stored(str(self.constants[name].dtype), self.constants[name].shape)
            for name in self.origins
            if name not in used
        }
        return Graph(
            "onnx",
            tuple(nodes),
            inputs,
            outputs,
            {name: value for name, value in self.constants.items() if name in used},
            {name: origin for name, origin in self.origins.items() if name in used},
            unread,
        )

    def _input(self, value: Any) -> Input:
        tensor = value.type.tensor_type
        dtype = str(np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
        if not tensor.HasField("shape"):
            return Input(value.name, dtype, None)
        return Input(value.name, dtype, tuple(d.dim_value or -1 for d in tensor.shape.dim))

    def _constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def _translate(self, name: str, node: Any) -> None:  # noqa: PLR0912, PLR0915 - a table
        get = self.onnx.helper.get_attribute_value
        attrs = {a.name: get(a) for a in node.attribute}
        inputs, outputs = tuple(node.input), tuple(o for o in node.output if o)
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        if op == "Constant":
            self._stored_constant(outputs[0], attrs)
            return
        attributes: dict[str, Any] = {}
        if op in _PLAIN:
            kind, outputs = _PLAIN[op], outputs[:1]
            inputs = inputs[:1] if op == "Dropout" else inputs
        elif op == "Conv":
            kind, attributes = "conv", self._window(attrs, inputs[1])
            attributes |= {"kernel_layout": "OIHW", "groups": int(attrs.get("group", 1))}
        elif op in _POOLS:
            kind, attributes = _POOLS[op], self._window(attrs)
            attributes["size"] = tuple(attrs["kernel_shape"])
            attributes["ceil"] = bool(attrs.get("ceil_mode", 0))
            attributes["count_padding"] = bool(attrs.get("count_include_pad", 0))
        elif op in ("GlobalAveragePool", "GlobalMaxPool"):
            kind = "mean" if op == "GlobalAveragePool" else "max"
            inputs, attributes = (*inputs, self._constant(f"{name}:axes", [2, 3])), {"keep": True}
        elif op == "BatchNormalization":
            kind, outputs = "batch_norm", outputs[:1]
            attributes = {"epsilon": float(attrs.get("epsilon", 1e-5)), "layout": "NCHW"}
        elif op == "MatMul":
            kind, attributes = "matmul", {"turned": (False, False)}
        elif op == "Gemm" and attrs.get("alpha", 1.0) == attrs.get("beta", 1.0) == 1.0:
            turned = (bool(attrs.get("transA", 0)), bool(attrs.get("transB", 0)))
            kind, attributes = "matmul", {"turned": turned}
        elif op in _REDUCTIONS:
            kind, attributes = _REDUCTIONS[op], {"keep": bool(attrs.get("keepdims", 1))}
            if "axes" in attrs:
                inputs = (*inputs[:1], self._constant(f"{name}:axes", attrs["axes"]))
        elif op == "Softmax":
            kind, attributes = "softmax", {"axis": int(attrs.get("axis", -1))}
            if self.opset < 13:
                attributes["axis"] = int(attrs.get("axis", 1))
        elif op == "Reshape":
            kind, attributes = "reshape", {"keep_zeros": not attrs.get("allowzero", 0)}
        elif op == "Flatten" and attrs.get("axis", 1) == 1:
            kind, attributes = "reshape", {"keep_zeros": True}
            inputs = (inputs[0], self._constant(f"{name}:shape", [0, -1]))
        elif op in ("Squeeze", "Unsqueeze"):
            kind = "squeeze" if op == "Squeeze" else "expand_dims"
            if "axes" in attrs:
                attributes = {"axes": tuple(int(i) for i in attrs["axes"])}
        elif op == "Transpose" and "perm" in attrs:
            kind, attributes = "transpose", {"order": tuple(int(i) for i in attrs["perm"])}
        elif op == "Concat":
            kind, attributes = "concat", {"axis": int(attrs["axis"])}
        elif op == "Clip":
            kind, attributes = "clip", {"low": attrs.get("min"), "high": attrs.get("max")}
        elif op == "Gather":
            kind, attributes = "gather", {"axis": int(attrs.get("axis", 0))}
        elif op == "Split" and len(inputs) > 1 and inputs[1] in self.constants:
            axis = self._constant(f"{name}:axis", attrs.get("axis", 0))
            sizes = tuple(int(size) for size in self.constants[inputs[1]])
            kind, inputs, attributes = "split", (axis, inputs[0]), {"sizes": sizes}
        elif op == "Cast":
            wanted = self.onnx.helper.tensor_dtype_to_np_dtype(attrs["to"])
            kind, attributes = "cast", {"dtype": str(np.dtype(wanted))}
        elif op == "LeakyRelu":
            kind, attributes = "leaky_relu", {"alpha": float(attrs.get("alpha", 0.01))}
        elif op == "Pad" and attrs.get("mode", b"constant") == b"constant":
            kind, inputs = "pad", self._pads(name, attrs, inputs)
        else:
            kind = f"onnx:{op}"
        self.nodes.append(Node(name, kind, inputs, outputs, attributes))

    def _stored_constant(self, output: str, attrs: dict[str, Any]) -> None:
        value = next(iter(attrs.values()))
        is_tensor = hasattr(value, "raw_data")
        self.constants[output] = (
            self.onnx.numpy_helper.to_array(value) if is_tensor else np.asarray(value)
        )
        if is_tensor:
            self.origins[output] = output

    def _pads(self, name: str, attrs: dict[str, Any], inputs: tuple[str, ...]) -> tuple[str, ...]:
        """ONNX lists all fronts and then all ends; here each axis has its pair."""
        flat = attrs.get("pads")
        if flat is None and len(inputs) > 1 and inputs[1] in self.constants:
            flat = self.constants[inputs[1]]
        if flat is None or (len(inputs) > 3 and inputs[3]):
            raise LoadFailed(f"the margin of '{name}' is computed, or not of all axes")
        pairs = np.asarray(flat, np.int64).reshape(2, -1).T
        return (inputs[0], self._constant(f"{name}:pads", pairs), *inputs[2:3])

    def _window(self, attrs: dict[str, Any], kernel: str = "") -> dict[str, Any]:
        sizes = attrs.get("kernel_shape")
        if sizes is None and kernel in self.constants:
            sizes = self.constants[kernel].shape[2:]
        rank = len(sizes) if sizes is not None else 2
        if rank != 2:
            raise LoadFailed("windows of other than two dimensions are not read")
        padding: Any = _AUTO.get(attrs.get("auto_pad", b"NOTSET").decode())
        if padding is None:
            pads = [int(i) for i in attrs.get("pads", [0] * 4)]
            padding = ((pads[0], pads[2]), (pads[1], pads[3])) if any(pads) else "VALID"
        return {
            "strides": tuple(int(i) for i in attrs.get("strides", (1, 1))),
            "dilations": tuple(int(i) for i in attrs.get("dilations", (1, 1))),
            "padding": padding,
            "layout": "NCHW",
        }
