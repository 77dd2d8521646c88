"""Reads a TFLite file without an interpreter: tensors, quantisation, custom ops, packed files."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.extras import require

EDGE_TPU_OP: Final = "edgetpu-custom-op"
DETECTION_OP: Final = "TFLite_Detection_PostProcess"
# Custom in the file format, and yet in every LiteRT.
_CARRIED: Final = frozenset({DETECTION_OP, "AudioSpectrogram", "Mfcc", "NumericVerify"})
_MAX_PACKED_BYTES: Final = 1 << 20
_MAX_ENTRIES: Final = 100_000
_DTYPES: Final[Mapping[str, str]] = {
    "FLOAT32": "FP32",
    "FLOAT16": "FP16",
    "FLOAT64": "FP64",
    "BFLOAT16": "BF16",
    "STRING": "BYTES",
    **{name: name for name in ("UINT8", "UINT16", "UINT32", "UINT64", "BOOL")},
    **{name: name for name in ("INT8", "INT16", "INT32", "INT64")},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output.

    Attributes:
        shape: as it is stored, with 1 where the batch may grow.
        quantization: scale and zero point of the whole tensor; ``None`` where it has none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: tuple[float, int] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """The first subgraph of a file.

    Attributes:
        last_ops: by output name, the op that writes it (``SOFTMAX``, a custom op's own name).
        custom: names of all custom ops.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    last_ops: Mapping[str, str]
    custom: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Custom ops that LiteRT does not carry."""
        return tuple(op for op in self.custom if op not in _CARRIED)


def read(path: Path) -> Graph:
    """Reads the file; needs no more of LiteRT than the schema of its format.

    Raises:
        LoadFailed: it is no TFLite file, or a damaged one.
        MissingExtra: LiteRT is not installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LoadFailed(f"'{path.name}' cannot be read: {error.strerror}") from error
    return parse(content)


def parse(content: bytes) -> Graph:
    """Reads the bytes of a file; raises as ``read``."""
    schema = require("ai_edge_litert.schema_py_generated", "tflite", "a TFLite model")
    if content[4:8] != b"TFL3":
        raise LoadFailed("it is no TFLite file: the mark TFL3 is not there")
    try:
        return _graph(schema, schema.Model.GetRootAs(content))
    except LoadFailed:
        raise
    except Exception as error:  # offsets into nowhere: struct.error, IndexError, TypeError, …
        raise LoadFailed("the TFLite file is damaged") from error


def states(graph: Graph) -> list[tuple[Tensor, Tensor]]:
    """Inputs of a recurrent graph that are its own outputs: ``…/init_x`` of ``…/x``.

    Both have one name but for the folder and ``init_``, one type, shape and quantisation.
    """
    outputs = {f"init_{_leaf(tensor)}": tensor for tensor in graph.outputs}
    pairs = [(tensor, outputs.get(_leaf(tensor))) for tensor in graph.inputs]
    return [
        (into, out)
        for into, out in pairs
        if out is not None and dataclasses.replace(out, name=into.name) == into
    ]


def _leaf(tensor: Tensor) -> str:
    return tensor.name.rpartition("/")[2]


def packed_labels(path: Path) -> tuple[str, bytes] | None:
    """A label file that TFLite metadata has packed behind the model, and its name."""
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as packed:
            for info in packed.infolist():
                name = info.filename
                if name.endswith(".txt") and "label" in name and info.file_size < _MAX_PACKED_BYTES:
                    with packed.open(info) as file:
                        return name, file.read(_MAX_PACKED_BYTES)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
        return None
    return None


def _graph(schema: Any, model: Any) -> Graph:
    codes = [
        _op_name(schema, model.OperatorCodes(i)) for i in range(_few(model.OperatorCodesLength()))
    ]
    if not model.SubgraphsLength():
        raise LoadFailed("the TFLite file holds no graph")
    main = model.Subgraphs(0)
    writers: dict[int, str] = {}
    for i in range(_few(main.OperatorsLength())):
        operator = main.Operators(i)
        for j in range(_few(operator.OutputsLength())):
            writers[operator.Outputs(j)] = codes[operator.OpcodeIndex()][0]
    inputs = [main.Inputs(i) for i in range(_few(main.InputsLength()))]
    outputs = [main.Outputs(i) for i in range(_few(main.OutputsLength()))]
    written = {i: _tensor(schema, main.Tensors(i)) for i in outputs}
    return Graph(
        tuple(_tensor(schema, main.Tensors(i)) for i in inputs),
        tuple(written.values()),
        {tensor.name: writers.get(i, "") for i, tensor in written.items()},
        tuple(name for name, custom in codes if custom),
    )


def _op_name(schema: Any, code: Any) -> tuple[str, bool]:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == schema.BuiltinOperator.CUSTOM:
        return (code.CustomCode() or b"").decode("utf-8", "replace"), True
    return _names(schema.BuiltinOperator).get(number, f"op {number}"), False


def _tensor(schema: Any, tensor: Any) -> Tensor:
    kind = _names(schema.TensorType).get(tensor.Type(), f"type {tensor.Type()}")
    quantization = tensor.Quantization()
    parameters = None
    if quantization is not None and quantization.ScaleLength() == 1:
        zero = quantization.ZeroPoint(0) if quantization.ZeroPointLength() else 0
        parameters = (float(quantization.Scale(0)), int(zero))
    return Tensor(
        (tensor.Name() or b"").decode("utf-8", "replace"),
        _DTYPES.get(kind, kind),
        tuple(int(tensor.Shape(i)) for i in range(_few(tensor.ShapeLength()))),
        parameters,
    )


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if name.isupper()}


def _few(count: int) -> int:
    """A damaged file may claim four thousand million of anything."""
    if count > _MAX_ENTRIES:
        raise LoadFailed("the TFLite file is damaged")
    return count
