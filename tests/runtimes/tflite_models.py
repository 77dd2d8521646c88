"""Builds tiny .tflite files from the schema that ai-edge-litert carries; no converter needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

FLOAT, UINT8 = schema.TensorType.FLOAT32, schema.TensorType.UINT8
INT32, STRING = schema.TensorType.INT32, schema.TensorType.STRING
Ops = schema.BuiltinOperator


@dataclasses.dataclass
class T:
    """A tensor: ``data`` makes it a constant, ``dynamic`` is its shape signature.

    ``variable`` keeps it from one run to the next.
    """

    name: str
    shape: Sequence[int]
    dtype: int = FLOAT
    data: np.ndarray | None = None
    quantization: tuple[float, int] | None = None
    dynamic: Sequence[int] | None = None
    variable: bool = False


@dataclasses.dataclass
class Op:
    """An operator: a builtin's number or a custom op's name."""

    code: int | str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: tuple[int, Any] | None = None


@dataclasses.dataclass
class Graph:
    tensors: Sequence[T]
    ops: Sequence[Op]
    inputs: Sequence[int]
    outputs: Sequence[int]
    signature: str = ""


def build(*graphs: Graph) -> bytes:
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    codes = list(dict.fromkeys(op.code for graph in graphs for op in graph.ops))
    model.operatorCodes = [_code(code) for code in codes]
    model.subgraphs = [_subgraph(graph, codes, model.buffers) for graph in graphs]
    model.signatureDefs = [_signature(g, i) for i, g in enumerate(graphs) if g.signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(code: int | str) -> Any:
    packed = schema.OperatorCodeT()
    packed.version = 1
    packed.builtinCode = Ops.CUSTOM if isinstance(code, str) else code
    packed.deprecatedBuiltinCode = min(packed.builtinCode, 127)
    packed.customCode = code if isinstance(code, str) else None
    return packed


def _subgraph(graph: Graph, codes: list[int | str], buffers: list[Any]) -> Any:
    packed = schema.SubGraphT()
    packed.tensors = [_tensor(t, buffers) for t in graph.tensors]
    packed.inputs, packed.outputs = list(graph.inputs), list(graph.outputs)
    packed.operators = []
    for op in graph.ops:
        operator = schema.OperatorT()
        operator.opcodeIndex = codes.index(op.code)
        operator.inputs, operator.outputs = list(op.inputs), list(op.outputs)
        if op.options:
            operator.builtinOptionsType, operator.builtinOptions = op.options
        packed.operators.append(operator)
    return packed


def _tensor(tensor: T, buffers: list[Any]) -> Any:
    packed = schema.TensorT()
    packed.name, packed.shape, packed.type = tensor.name, list(tensor.shape), tensor.dtype
    packed.hasRank, packed.isVariable = True, tensor.variable
    if tensor.dynamic is not None:
        packed.shapeSignature = list(tensor.dynamic)
    packed.buffer = 0
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(tensor.data.tobytes(), np.uint8)
        packed.buffer = len(buffers)
        buffers.append(buffer)
    if tensor.quantization:
        packed.quantization = schema.QuantizationParametersT()
        packed.quantization.scale = [tensor.quantization[0]]
        packed.quantization.zeroPoint = [tensor.quantization[1]]
    return packed


def _signature(graph: Graph, index: int) -> Any:
    packed = schema.SignatureDefT()
    packed.signatureKey, packed.subgraphIndex = graph.signature, index
    packed.inputs = [_entry(graph, i) for i in graph.inputs]
    packed.outputs = [_entry(graph, i) for i in graph.outputs]
    return packed


def _entry(graph: Graph, index: int) -> Any:
    packed = schema.TensorMapT()
    packed.name, packed.tensorIndex = graph.tensors[index].name, index
    return packed


def affine(scale: float, shift: float, signature: str = "", dynamic: bool = False) -> Graph:
    """m = scale * x, y = m + shift, FP32 [1, 3]; ``dynamic`` declares the batch as -1."""
    shape, any_rows = [1, 3], [-1, 3] if dynamic else None
    return Graph(
        [
            T("x", shape, dynamic=any_rows),
            T("a", [1], data=np.array([scale], np.float32)),
            T("b", [1], data=np.array([shift], np.float32)),
            T("m", shape, dynamic=any_rows),
            T("y", shape, dynamic=any_rows),
        ],
        [
            Op(Ops.MUL, [0, 1], [3], (schema.BuiltinOptions.MulOptions, schema.MulOptionsT())),
            Op(Ops.ADD, [3, 2], [4], (schema.BuiltinOptions.AddOptions, schema.AddOptionsT())),
        ],
        [0],
        [4, 3],
        signature,
    )


def reshape(
    to: Sequence[int],
    dtype: int = FLOAT,
    quantization: tuple[float, int] | None = None,
) -> Graph:
    """y = x reshaped from [1, 4]; a leading 1 in ``to`` bakes the batch in, -1 leaves it free."""
    shape = np.array(to, np.int32)
    out = [4 if size == -1 and len(to) == 1 else abs(size) for size in to]
    options = schema.ReshapeOptionsT()
    options.newShape = list(to)
    return Graph(
        [
            T("x", [1, 4], dtype, quantization=quantization),
            T("shape", [len(to)], INT32, data=shape),
            T("y", out, dtype, quantization=quantization),
        ],
        [Op(Ops.RESHAPE, [0, 1], [2], (schema.BuiltinOptions.ReshapeOptions, options))],
        [0],
        [2],
    )


def centred() -> Graph:
    """y = x - mean of x over the rows, [1, 3]: resizable, but rows influence each other."""
    options = schema.ReducerOptionsT()
    options.keepDims = True
    sub = (schema.BuiltinOptions.SubOptions, schema.SubOptionsT())
    return Graph(
        [
            T("x", [1, 3]),
            T("axis", [1], INT32, data=np.array([0], np.int32)),
            T("mean", [1, 3]),
            T("y", [1, 3]),
        ],
        [
            Op(Ops.MEAN, [0, 1], [2], (schema.BuiltinOptions.ReducerOptions, options)),
            Op(Ops.SUB, [0, 2], [3], sub),
        ],
        [0],
        [3],
    )


def custom(name: str) -> Graph:
    """One custom operator, which nobody registered."""
    return Graph([T("x", [1, 3]), T("y", [1, 3])], [Op(name, [0], [1])], [0], [1])


def edge_tpu(x: str = "x", y: str = "y", then_on_cpu: bool = False) -> Graph:
    """y = the Edge TPU's op of x, uint8 [1, 4], and then perhaps a reshape, which the CPU does."""
    shape = [1, 4]
    made = "compiled" if then_on_cpu else y
    tensors = [T(x, shape, UINT8), T(made, shape, UINT8)]
    ops = [Op("edgetpu-custom-op", [0], [1])]
    if then_on_cpu:
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        tensors += [T("shape", [2], INT32, data=np.array(shape, np.int32)), T(y, shape, UINT8)]
        ops.append(Op(Ops.RESHAPE, [1, 2], [3], (schema.BuiltinOptions.ReshapeOptions, options)))
    return Graph(tensors, ops, [0], [len(tensors) - 1])


def gather(rows: int) -> Graph:
    """y = table[x], x INT32 [1, 2]: an index too large fails the run."""
    table = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    options = schema.GatherOptionsT()
    return Graph(
        [T("x", [1, 2], INT32), T("table", [rows, 2], data=table), T("y", [1, 2, 2])],
        [Op(Ops.GATHER, [1, 0], [2], (schema.BuiltinOptions.GatherOptions, options))],
        [0],
        [2],
    )


def remembering() -> Graph:
    """A recurrent net, FP32 [1, 1, 2]: y = x + what it answered before."""
    one, zero = np.eye(2, dtype=np.float32), np.zeros(2, np.float32)
    options = schema.SequenceRNNOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.NONE
    return Graph(
        [
            T("x", [1, 1, 2]),
            T("w", [2, 2], data=one),
            T("r", [2, 2], data=one),
            T("b", [2], data=zero),
            T("state", [1, 2], variable=True),
            T("y", [1, 1, 2]),
        ],
        [
            Op(
                Ops.UNIDIRECTIONAL_SEQUENCE_RNN,
                [0, 1, 2, 3, 4],
                [5],
                (schema.BuiltinOptions.SequenceRNNOptions, options),
            )
        ],
        [0],
        [5],
    )


def heavy(megabytes: int) -> Graph:
    """y = x W, W random FP32, x [1, 256]."""
    columns = megabytes * 1024
    table = np.random.default_rng(0).random((columns, 256), dtype=np.float32)
    options = (schema.BuiltinOptions.FullyConnectedOptions, schema.FullyConnectedOptionsT())
    return Graph(
        [T("x", [1, 256]), T("w", [columns, 256], data=table), T("y", [1, columns])],
        [Op(Ops.FULLY_CONNECTED, [0, 1, -1], [2], options)],
        [0],
        [2],
    )
