"""``tensorflow.Example`` to inputs: serialized where the model parses them, else by feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Signature, Tensor, TensorSpec
from crossfade.serving.tensors import cells
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.wire.fields import parse, walk

# An example of two bytes becomes an object of hundreds: so many are allowed in a large message.
_MAX_EXAMPLES: Final = 16 * 1024
_LARGE_BYTES: Final = 16 * 1024
_INPUT: Final = 0x12  # field 2 of each request that has examples
# Which kinds of feature an input takes, by kind of its numpy dtype.
_TAKEN: Final = {
    "O": ("bytes_list",),
    "f": ("float_list", "int64_list"),
    "V": ("float_list", "int64_list"),  # bfloat16
    "i": ("int64_list",),
    "u": ("int64_list",),
    "b": ("int64_list",),
}


def decode(kind: Any, message: bytes | memoryview) -> Any:
    """Parses a request with examples.

    Raises:
        InvalidArgument: these bytes are none, or there are too many examples.
    """
    if len(message) > _LARGE_BYTES:
        view = memoryview(message)
        try:
            for tag, _, start, end in walk(view, _MAX_EXAMPLES):
                if tag == _INPUT:
                    _check_number(view[start:end])
        except IndexError:
            raise InvalidArgument("the request is of no form that clients use") from None
    return parse(kind, message)


def _check_number(view: memoryview) -> None:
    for _, _, start, end in walk(view, _MAX_EXAMPLES):
        for _ in walk(view[start:end], _MAX_EXAMPLES):
            pass


def serialized(message: Any) -> list[bytes]:
    """The examples of an ``Input``, with its context in each of them.

    Raises:
        InvalidArgument: there are none.
    """
    kind = message.WhichOneof("kind")
    if kind is None:
        raise InvalidArgument("Input is empty.")
    examples = getattr(message, kind)
    # What stands later in a message wins: an example's own feature over the context's.
    context = b""
    if kind == "example_list_with_context":
        context = examples.context.SerializeToString()
    found = [context + example.SerializeToString() for example in examples.examples]
    if not found:
        raise InvalidArgument("Input is empty.")
    return found


def to_inputs(examples: Sequence[bytes], signature: Signature, kind: Any) -> list[RawTensor]:
    """Makes a signature's inputs of examples.

    Args:
        examples: serialized, at least one.
        signature: if its one input is BYTES with one element a row, it takes them serialized.
        kind: the message class ``Example``.

    Raises:
        InvalidArgument: a feature is missing, of another kind or length, or does not fit.
    """
    inputs = signature.inputs
    if len(inputs) == 1 and inputs[0].dtype == "BYTES" and _takes_rows(inputs[0]):
        rows = np.empty(len(examples), np.object_)
        rows[:] = examples
        return [RawTensor(inputs[0].name, "BYTES", rows.shape, rows)]
    parsed = [kind.FromString(example).features.feature for example in examples]
    columns = [spec for spec in inputs if spec.cells]
    if columns:
        there = frozenset().union(*parsed)
        columns = [spec for spec in columns if spec.name in there]
        cells.check_number(len(columns) * len(parsed))
    made = [_column(spec, parsed) for spec in columns]
    others = (_input(spec, parsed) for spec in inputs if not spec.cells)
    return made + [raw for raw in others if raw is not None]


def _takes_rows(spec: TensorSpec) -> bool:
    return spec.shape is None or len(spec.shape) == 1


def _input(spec: TensorSpec, examples: Sequence[Any]) -> RawTensor | None:
    """One input, a row for each example; ``None`` if it is optional and no example has it."""
    name = spec.name
    having = sum(name in features for features in examples)
    if not having and spec.optional:
        return None
    if having < len(examples):
        raise InvalidArgument(f"Feature: {escape(name)} (data type: {spec.dtype}) is required")
    rows = [_row(spec, features[name]) for features in examples]
    if len({row.size for row in rows}) > 1:
        raise InvalidArgument(f"Feature: {name} has values of different lengths")
    array = np.stack(rows)  # [N, values]
    inner = (spec.shape or (-1, -1))[1:]
    fixed = [size for size in inner if size != -1]
    if len(inner) - len(fixed) > 1:
        raise InvalidArgument(f"Feature: {name} has no shape that an example's values tell")
    try:
        array = array.reshape(len(examples), *inner)
    except ValueError:
        raise InvalidArgument(
            f"Feature: {name} has {array.shape[1]} values; the model expects {list(inner)}"
        ) from None
    return RawTensor(name, spec.dtype, array.shape, array)


def _column(spec: TensorSpec, examples: Sequence[Any]) -> RawTensor:
    """A column of a table: examples that do not have the feature have no value."""
    rows: list[Any] = []
    for features in examples:
        found = features.get(spec.name)
        kind = found.WhichOneof("kind") if found is not None else None
        values = list(getattr(found, kind).value) if kind is not None else []
        if kind == "float_list":  # the shortest text of a float, and not of a double
            values = [float(str(np.float32(value))) for value in values]
        if spec.shape is None or len(spec.shape) == 1:
            if len(values) > 1:
                raise InvalidArgument(f"Feature: {spec.name} has more than one value")
            rows.append(values[0] if values else None)
        else:
            rows.append(values)
    return cells.to_raw(spec, rows)


def _row(spec: TensorSpec, feature: Any) -> Tensor:
    target = NUMPY[spec.dtype]
    found = feature.WhichOneof("kind")
    if found not in _TAKEN[target.kind]:
        raise InvalidArgument(
            f"Feature: {spec.name} (data type: {spec.dtype}) has values of another kind"
        )
    values = getattr(feature, found).value
    if target.kind == "O":
        texts = np.empty(len(values), np.object_)
        texts[:] = list(values)
        return texts
    stored = np.dtype(np.float32 if found == "float_list" else np.int64)
    array: Tensor = np.fromiter(values, stored, len(values))
    if target.kind in "iub" and array.size:
        low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
        if int(array.min()) < low or int(array.max()) > high:
            raise InvalidArgument(f"Feature: {spec.name} has a value that {spec.dtype} cannot hold")
    return array.astype(target)
