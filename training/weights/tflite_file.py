"""A TFLite file's graph, its weights dequantised; no interpreter is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.extras import require
from crossfade.training.weights.graph import Array, Graph, Input, Node, Stored, ordered

_PLAIN: Final = {
    **{name: name.lower() for name in ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW")},
    **{name: name.lower() for name in ("RELU", "RELU6", "TANH", "HARD_SWISH", "SQRT", "RSQRT")},
    **{name: name.lower() for name in ("SQUARE", "NEG", "EXP", "LOG", "ABS", "ELU", "FLOOR")},
    **{name: name.lower() for name in ("SHAPE", "TRANSPOSE", "PAD", "EXPAND_DIMS", "SLICE")},
    **{name: name.lower() for name in ("SQUARED_DIFFERENCE", "TILE", "BROADCAST_TO")},
    "LOGISTIC": "sigmoid",
    "PADV2": "pad",
    "SELECT_V2": "where",
    "QUANTIZE": "identity",
    "DEQUANTIZE": "identity",
}
_REDUCTIONS: Final = {
    "MEAN": "mean",
    "SUM": "sum",
    "REDUCE_MAX": "max",
    "REDUCE_MIN": "min",
    "REDUCE_PROD": "prod",
}
# What they answer are values that they were given.
_SAME_GRID: Final = frozenset(
    {"RESHAPE", "MAX_POOL_2D", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SHAPE", "GATHER", "PACK"}
)
_ACTIVATIONS: Final = {1: "relu", 3: "relu6", 4: "tanh"}
_PADDINGS: Final = ("SAME", "VALID")
_DTYPES: Final[Mapping[str, str]] = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "FLOAT64": "float64",
    "BOOL": "bool",
    **{name: name.lower() for name in ("UINT8", "INT8", "INT16", "INT32", "INT64", "UINT32")},
}


def read(path: Path) -> Graph:
    """Reads the first graph of a file.

    Raises:
        LoadFailed: it is no TFLite file, or a damaged one.
        MissingExtra: LiteRT, which has the schema of the format, is not installed.
    """
    schema = require("ai_edge_litert.schema_py_generated", "tflite", "a TFLite model")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadFailed(f"'{path.name}' cannot be read: {error.strerror}") from error
    if content[4:8] != b"TFL3":
        raise LoadFailed("it is no TFLite file: the mark TFL3 is not there")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        return _Reader(schema, model).graph()
    except LoadFailed:
        raise
    except Exception as error:  # offsets into nowhere: struct.error, IndexError, TypeError, …
        raise LoadFailed("the TFLite file is damaged") from error


class _Reader:
    def __init__(self, schema: Any, model: Any) -> None:
        self.types = {v: k for k, v in vars(schema.TensorType).items() if k.isupper()}
        ops = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
        self.codes = []
        for code in model.operatorCodes:
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            custom = (code.customCode or b"custom").decode("utf-8", "replace")
            name = ops.get(number, f"op {number}")
            self.codes.append(custom if name == "CUSTOM" else name)
        self.model, self.main = model, model.subgraphs[0]
        self.constants: dict[str, Array] = {}
        self.origins: dict[str, str] = {}
        self.nodes: list[Node] = []

    def graph(self) -> Graph:
        for index in range(len(self.main.tensors)):
            self._constant(index)
        for number, operator in enumerate(self.main.operators):
            self._translate(f"op{number}", operator)
        inputs = {self._name(i): self._input(i) for i in self.main.inputs}
        outputs = {self._name(i): f"t{i}" for i in self.main.outputs}
        nodes = ordered(self.nodes, outputs.values(), [i.tensor for i in inputs.values()])
        used = {name for node in nodes for name in node.inputs} | set(outputs.values())
        unread = {
            origin: Stored(str(self.constants[t].dtype), self.constants[t].shape)
            for t, origin in self.origins.items()
            if t not in used
        }
        return Graph(
            "tflite",
            tuple(nodes),
            inputs,
            outputs,
            {t: value for t, value in self.constants.items() if t in used},
            {t: origin for t, origin in self.origins.items() if t in used},
            unread,
        )

    def _name(self, index: int) -> str:
        return (self.main.tensors[index].name or b"").decode("utf-8", "replace") or f"t{index}"

    def _input(self, index: int) -> Input:
        tensor = self.main.tensors[index]
        dtype = self._dtype(tensor)
        signature = tensor.shapeSignature
        shape = tensor.shape if signature is None else signature
        sizes = tuple(int(size) for size in shape) if shape is not None else ()
        quantization = tensor.quantization
        if quantization is None or quantization.scale is None or dtype.startswith("float"):
            return Input(f"t{index}", dtype, sizes)
        zero = quantization.zeroPoint
        pair = float(quantization.scale[0]), int(zero[0]) if zero is not None else 0
        return Input(f"t{index}", "float32", sizes, pair)

    def _dtype(self, tensor: Any) -> str:
        kind = self.types.get(tensor.type, "")
        return _DTYPES.get(kind, kind.lower())

    def _constant(self, index: int) -> None:
        tensor = self.main.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data) or (dtype := self._dtype(tensor)) not in _DTYPES.values():
            return
        sizes = [int(size) for size in tensor.shape] if tensor.shape is not None else []
        value = np.frombuffer(bytes(data), np.dtype(dtype)).reshape(sizes)
        self.constants[f"t{index}"] = _dequantized(value, tensor.quantization)
        self.origins[f"t{index}"] = self._name(index)

    def _translate(self, name: str, operator: Any) -> None:  # noqa: PLR0912, PLR0915 - a table
        op, options = self.codes[operator.opcodeIndex], operator.builtinOptions
        inputs = tuple(f"t{i}" if i >= 0 else "" for i in operator.inputs)
        outputs = tuple(f"t{i}" for i in operator.outputs)
        attributes: dict[str, Any] = {}
        if op in _PLAIN:
            kind = _PLAIN[op]
        elif op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            kind = "conv"
            attributes = _window(options, "dilationHFactor", "dilationWFactor")
            attributes["kernel_layout"] = "OHWI" if op == "CONV_2D" else "1HWO"
        elif op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
            kind = "max_pool" if op == "MAX_POOL_2D" else "avg_pool"
            attributes = _window(options)
            attributes["size"] = (options.filterHeight, options.filterWidth)
        elif op == "FULLY_CONNECTED":
            kind, attributes = "matmul", {"turned": (False, True)}
            if not options.keepNumDims:
                inputs = (self._rows(name, inputs), *inputs[1:])
        elif op in _REDUCTIONS:
            kind, attributes = _REDUCTIONS[op], {"keep": bool(options.keepDims)}
        elif op == "SOFTMAX":
            kind, attributes = "softmax", {"beta": float(options.beta)}
        elif op == "CONCATENATION":
            kind, attributes = "concat", {"axis": int(options.axis)}
        elif op == "RESHAPE":
            kind = "reshape"
            if len(inputs) < 2:
                self.constants[f"{name}:shape"] = np.asarray(options.newShape, np.int32)
                inputs = (*inputs, f"{name}:shape")
        elif op == "SQUEEZE":
            axes = options.squeezeDims
            kind, attributes = "squeeze", {"axes": () if axes is None else tuple(map(int, axes))}
        elif op == "PACK":
            kind, attributes = "pack", {"axis": int(options.axis)}
        elif op == "GATHER":
            kind, attributes = "gather", {"axis": int(options.axis)}
        elif op == "EMBEDDING_LOOKUP":
            kind, attributes, inputs = "gather", {"axis": 0}, inputs[::-1]
        elif op == "LEAKY_RELU":
            kind, attributes = "leaky_relu", {"alpha": float(options.alpha)}
        elif op == "CAST":
            wanted = self._dtype(self.main.tensors[operator.outputs[0]])
            kind, attributes = "cast", {"dtype": wanted}
        elif op == "STRIDED_SLICE":
            names = ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")
            own = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
            attributes = {
                f"{o}_mask": int(getattr(options, f"{n}Mask"))
                for o, n in zip(own, names, strict=True)
            }
            kind = "strided_slice"
        elif op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
            kind = "resize"
            attributes = {
                "filter": "bilinear" if op == "RESIZE_BILINEAR" else "nearest",
                "centers": bool(options.halfPixelCenters),
                "corners": bool(options.alignCorners),
            }
        else:
            kind = f"tflite:{op}"
        if step := self._step(op, operator):
            exact, outputs = outputs, (f"{outputs[0]}:exact",)
            self.nodes.append(Node(f"{name}:steps", "quantized", outputs, exact, step))
        fused = getattr(options, "fusedActivationFunction", 0)
        if fused and fused not in _ACTIVATIONS:
            kind = f"tflite:{op} with activation {fused}"
        elif fused:
            between = (f"{outputs[0]}:{name}",)
            self.nodes.append(Node(name, kind, inputs, between, attributes))
            self.nodes.append(Node(f"{name}:activation", _ACTIVATIONS[fused], between, outputs))
            return
        self.nodes.append(Node(name, kind, inputs, outputs, attributes))

    def _step(self, op: str, operator: Any) -> dict[str, float]:
        """The grid that an operation's answer is rounded to; its ends stand for an activation."""
        tensor = self.main.tensors[operator.outputs[0]]
        dtype, quantization = self._dtype(tensor), tensor.quantization
        if op in _SAME_GRID or dtype not in ("uint8", "int8", "int16") or quantization is None:
            return {}
        if quantization.scale is None or not len(quantization.scale):
            return {}
        limits = np.iinfo(dtype)
        zero = quantization.zeroPoint
        zero = int(zero[0]) if zero is not None and len(zero) else 0
        return {
            "scale": float(quantization.scale[0]),
            "low": float(limits.min - zero),
            "high": float(limits.max - zero),
        }

    def _rows(self, name: str, inputs: tuple[str, ...]) -> str:
        """Whatever its rank, a fully connected layer sees rows as long as its kernel is."""
        width = self.main.tensors[int(inputs[1].removeprefix("t"))].shape[-1]
        self.constants[f"{name}:rows"] = np.array([-1, width], np.int32)
        self.nodes.append(
            Node(f"{name}:flat", "reshape", (inputs[0], f"{name}:rows"), (f"{name}:flat",))
        )
        return f"{name}:flat"


def _window(options: Any, *dilations: str) -> dict[str, Any]:
    return {
        "strides": (options.strideH, options.strideW),
        "dilations": tuple(getattr(options, name) for name in dilations) or (1, 1),
        "padding": _PADDINGS[options.padding],
        "layout": "NHWC",
    }


def _dequantized(value: Array, quantization: Any) -> Array:
    """Real numbers of integers with a scale; others as they are."""
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return value.astype(np.float32) if value.dtype == np.float16 else value
    if value.dtype.kind == "f":
        return value
    scale = np.asarray(quantization.scale, np.float64)
    zero = quantization.zeroPoint
    zero = np.zeros(len(scale)) if zero is None or not len(zero) else np.asarray(zero)
    if len(scale) > 1:
        shape = [1] * value.ndim
        shape[quantization.quantizedDimension] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return np.asarray((value.astype(np.float64) - zero) * scale, np.float32)
