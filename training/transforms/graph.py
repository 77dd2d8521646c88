"""A specification as an ONNX graph: tables in, features out, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import MissingExtra, escape
from crossfade.training.transforms.errors import InvalidSpec
from crossfade.training.transforms.evaluate import Evaluation
from crossfade.training.transforms.operations import Binary, Comparison, Dtype
from crossfade.training.transforms.spec import Column, TransformSpec
from crossfade.training.transforms.table import NUMBER

Array = npt.NDArray[Any]
Numbers = Literal["float64", "text"]
OPSET: Final = 20
IR_VERSION: Final = 10
DENSE: Final = "dense"
IDS: Final = "ids"
ROWS: Final = "rows"
# Tensors inside the graph; no column's name begins so.
INSIDE: Final = "\x1f"

_BINARY: Final[Mapping[Binary, str]] = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "mod": "Mod",
    "max": "Max",
    "min": "Min",
}
_COMPARE: Final[Mapping[Comparison, str]] = {
    "equal": "Equal",
    "greater": "Greater",
    "less_or_equal": "LessOrEqual",
}
_TYPES: Final = {"float64": "DOUBLE", "float32": "FLOAT", "int64": "INT64"}


class GraphOperations:
    """Writes each operation as nodes; values are names of tensors. See ``Operations``.

    Args:
        onnx: the library.
        numbers: ``text`` takes number columns as texts, and reads them as a CSV file is read.
    """

    def __init__(self, onnx: Any, numbers: Numbers = "float64") -> None:
        self.onnx = onnx
        self.numbers = numbers
        self._made: dict[tuple[Any, ...], str] = {}
        self._numbers: dict[str, str] = {}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def number(self, column: str) -> str:
        """See ``Operations``."""
        if self.numbers == "float64":
            return column
        if column not in self._numbers:
            matches = self.full_match(column, NUMBER)
            digits = self.where(matches, column, self.constant("nan"))
            self._numbers[column] = self.cast(digits, "float64")
        return self._numbers[column]

    def text(self, column: str) -> str:
        """See ``Operations``."""
        return column

    def constant(self, value: float | int | str | bool | Array) -> str:
        """See ``Operations``."""
        array = value if isinstance(value, np.ndarray) else np.array(value)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._made:
            name = f"{INSIDE}constant_{len(self.initializers)}"
            if isinstance(value, str):
                tensor = self.onnx.helper.make_tensor(
                    name, self.onnx.TensorProto.STRING, (), [value.encode()]
                )
            else:
                tensor = self.onnx.numpy_helper.from_array(array, name)
            self.initializers.append(tensor)
            self._made[key] = name
        return self._made[key]

    def binary(self, kind: Binary, left: str, right: str) -> str:
        """See ``Operations``."""
        return self.node(_BINARY[kind], left, right)

    def compare(self, kind: Comparison, left: str, right: str) -> str:
        """See ``Operations``."""
        return self.node(_COMPARE[kind], left, right)

    def both(self, left: str, right: str) -> str:
        """See ``Operations``."""
        return self.node("And", left, right)

    def negate(self, value: str) -> str:
        """See ``Operations``."""
        return self.node("Not", value)

    def where(self, condition: str, yes: str, no: str) -> str:
        """See ``Operations``."""
        return self.node("Where", condition, yes, no)

    def finite(self, value: str) -> str:
        """See ``Operations``."""
        return self.negate(self.node("Or", self.node("IsNaN", value), self.node("IsInf", value)))

    def log(self, value: str) -> str:
        """See ``Operations``."""
        return self.node("Log", value)

    def floor(self, value: str) -> str:
        """See ``Operations``."""
        return self.node("Floor", value)

    def cast(self, value: str, dtype: Dtype) -> str:
        """See ``Operations``."""
        return self.node("Cast", value, to=getattr(self.onnx.TensorProto, _TYPES[dtype]))

    def place(self, texts: str, categories: Sequence[str]) -> str:
        """See ``Operations``."""
        return self.node(
            "LabelEncoder",
            texts,
            domain="ai.onnx.ml",
            keys_strings=[category.encode() for category in categories],
            values_int64s=list(range(len(categories))),
            default_int64=-1,
        )

    def gather(self, table: str, places: str) -> str:
        """See ``Operations``."""
        return self.node("Gather", table, places)

    def one_hot(self, places: str, depth: int) -> str:
        """See ``Operations``."""
        column = self.node("Unsqueeze", places, self.constant(np.array([1], np.int64)))
        same = self.node("Equal", column, self.constant(np.arange(depth, dtype=np.int64)))
        return self.cast(same, "float32")

    def count_below(self, value: str, boundaries: Sequence[float]) -> str:
        """See ``Operations``."""
        column = self.node("Unsqueeze", value, self.constant(np.array([1], np.int64)))
        above = self.node("Greater", column, self.constant(np.array(boundaries, np.float64)))
        axis = self.constant(np.array([1], np.int64))
        count = self.node("ReduceSum", self.cast(above, "int64"), axis, keepdims=0)
        return self.node("Cast", count, to=self.onnx.TensorProto.STRING)

    def concatenate(self, left: str, right: str) -> str:
        """See ``Operations``."""
        return self.node("StringConcat", left, right)

    def full_match(self, texts: str, pattern: str) -> str:
        """See ``Operations``."""
        return self.node("RegexFullMatch", texts, pattern=pattern)

    def piece(self, texts: str, delimiter: str, place: int) -> str:
        """See ``Operations``."""
        pieces = self.node("StringSplit", texts, outputs=2, delimiter=delimiter)
        return self.node("Gather", pieces, self.constant(place), axis=1)

    def hash32(self, texts: str, seed: int) -> str:
        """See ``Operations``."""
        hashed = self.node("MurmurHash3", texts, domain="com.microsoft", seed=seed, positive=1)
        return self.cast(hashed, "int64")

    def columns(self, values: Sequence[str], name: str) -> None:
        """Joins [rows] and [rows, width] to the output ``name``."""
        joined = []
        for value in values:
            flat = self.node("Unsqueeze", value, self.constant(np.array([1], np.int64)))
            joined.append(self.node("Flatten", flat, axis=1))
        self.nodes.append(self.onnx.helper.make_node("Concat", joined, [name], axis=1))

    def node(
        self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> str:
        """Adds a node unless the same is there; returns its first output."""
        key = (kind, inputs, repr(sorted(attributes.items())))
        if key not in self._made:
            names = [f"{INSIDE}{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
            node = self.onnx.helper.make_node(kind, inputs, names, domain=domain, **attributes)
            self.nodes.append(node)
            self._made[key] = names[0]
        return self._made[key]


def features(spec: TransformSpec, ops: GraphOperations, dense: str, ids: str) -> list[Any]:
    """Adds a specification's nodes; several may share the operations.

    Args:
        spec: what is computed.
        ops: where the nodes go.
        dense: what to call the features.
        ids: what to call the embedding rows.

    Returns:
        Descriptions of those of the two that have columns.
    """
    run = Evaluation(spec, ops)
    types = ops.onnx.TensorProto
    outputs = []
    for name, values, width, dtype in (
        (dense, run.dense(), len(spec.dense_names), types.FLOAT),
        (ids, run.ids(), len(spec.id_sizes), types.INT64),
    ):
        if values:
            ops.columns(values, name)
            outputs.append(ops.onnx.helper.make_tensor_value_info(name, dtype, [ROWS, width]))
    return outputs


def build(spec: TransformSpec, *, numbers: Numbers = "float64") -> Any:
    """Makes the graph of a specification.

    Args:
        spec: what it computes.
        numbers: number columns as float64 with NaN for what is missing, or as ``text``, with an
            empty text for it and for what is no number.

    Returns:
        An ONNX model. Its inputs are the columns, [rows]; its outputs ``dense``, float32 [rows, n],
        and ``ids``, int64 [rows, n], the same as ``evaluate.transform`` gives. One that has no
        columns is left out. ``hash`` needs ONNX Runtime, the rest any runtime with opset 20.

    Raises:
        InvalidSpec: a column is called as a tensor of the graph.
        MissingExtra: the library onnx is not installed.
    """
    ops = GraphOperations(library(), numbers)
    outputs = features(spec, ops, DENSE, IDS)
    return model(ops, spec.columns, outputs)


def library() -> Any:
    """The library onnx; raises MissingExtra without it."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError:
        raise MissingExtra("training", "a graph of transforms") from None
    return onnx


def model(ops: GraphOperations, columns: Sequence[Column], outputs: Sequence[Any]) -> Any:
    """A model of what has been added to the operations; raises as ``build``."""
    helper, types = ops.onnx.helper, ops.onnx.TensorProto
    taken = {output.name for output in outputs}
    for column in columns:
        if column.name in taken or column.name.startswith(INSIDE):
            raise InvalidSpec(
                f"a column cannot be called '{escape(column.name)}', as an output of the graph is:"
                " rename it"
            )
    inputs = [
        helper.make_tensor_value_info(
            column.name,
            types.DOUBLE if column.kind == "number" and ops.numbers == "float64" else types.STRING,
            [ROWS],
        )
        for column in columns
    ]
    graph = helper.make_graph(ops.nodes, "transforms", inputs, outputs, ops.initializers)
    domains = {node.domain for node in ops.nodes}
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    if "com.microsoft" in domains:
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    made = helper.make_model(graph, opset_imports=opsets, producer_name="crossfade")
    made.ir_version = IR_VERSION
    return made
