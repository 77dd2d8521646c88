"""Cells of a table: text, whatever they came as; an empty one has no value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Signature, Tensor, TensorSpec
from crossfade.serving.tensors.json_values import is_bytes, to_bytes
from crossfade.serving.tensors.raw import RawTensor

# A cell of one byte becomes an object of sixty: a request may not have more of them.
MAX_CELLS: Final = 2**20
# Longer names are no misspelt ones, and comparing them takes long.
_MAX_COMPARED: Final = 128


def columns(instances: Sequence[Any], signature: Signature) -> dict[str, list[Any]]:
    """The columns of JSON rows that may have different keys; ``None`` where a row has no value.

    Raises:
        InvalidArgument: a row is no object, has a column that there is not, or there are too many.
    """
    known = {spec.name for spec in signature.inputs}
    found: dict[str, None] = {}
    for row, instance in enumerate(instances):
        if not isinstance(instance, dict) or is_bytes(instance):
            raise InvalidArgument(f"instance {row} is not an object of columns")
        for name in instance:
            if name not in known:
                raise unknown(name, [spec.name for spec in signature.inputs if spec.cells])
            found[name] = None
        check_number(len(instances) * len(found))
    if not found:  # rows without any value are rows, too
        found[next(spec.name for spec in signature.inputs if spec.cells)] = None
    return {name: [instance.get(name) for instance in instances] for name in found}


def to_raw(spec: TensorSpec, values: Any) -> RawTensor:
    """Makes a column of JSON values, one for each row.

    Args:
        spec: of one dimension, or of two if the rows hold lists; shorter ones are filled up with
            empty cells.
        values: strings, numbers, booleans, ``None``.

    Raises:
        InvalidArgument: they are no list, or one of them is nested deeper.
    """
    if not isinstance(values, list):
        raise InvalidArgument(f"column '{spec.name}' must be a list with a value for each row")
    check_number(len(values))
    if spec.shape is None or len(spec.shape) == 1:
        array = np.empty(len(values), np.object_)
        array[:] = [of_json(spec.name, value) for value in values]
        return RawTensor(spec.name, spec.dtype, array.shape, array)
    lists = [[] if value is None else value for value in values]
    if not all(isinstance(value, list) for value in lists):
        raise InvalidArgument(f"column '{spec.name}' is declared an array: a value must be a list")
    width = max(1, *map(len, lists))
    check_number(len(lists) * width)
    table = np.full((len(lists), width), b"", np.object_)
    for row, value in enumerate(lists):
        table[row, : len(value)] = [of_json(spec.name, item) for item in value]
    return RawTensor(spec.name, spec.dtype, table.shape, table)


def of_json(name: str, value: Any) -> bytes:
    """A cell of a JSON value; numbers that are not finite are no values.

    Raises:
        InvalidArgument: it is a list or an object.
    """
    if value is None:
        return b""
    if isinstance(value, bytes):  # no JSON, but what else says cells in this way has them
        return value
    if isinstance(value, str) or is_bytes(value):
        return to_bytes(name, value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(value).encode() if math.isfinite(value) else b""
    kind = "a list" if isinstance(value, list) else "an object"
    raise InvalidArgument(
        f"column '{escape(name)}' has a value that is {kind}; it takes strings, numbers, booleans"
        " and null"
    )


def texts(numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cells of numbers and booleans, of the same shapes; those not finite are no values.

    Raises:
        InvalidArgument: there are too many.
    """
    check_number(sum(array.size for array in numbers.values()))
    return {name: _texts(array) for name, array in numbers.items()}


def unknown(name: str, known: Collection[str]) -> InvalidArgument:
    """Says that there is no such column, and which one may be meant."""
    near = difflib.get_close_matches(name[:_MAX_COMPARED], known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"the table has {len(known)} columns"
    return InvalidArgument(f"there is no column '{escape(name[:_MAX_COMPARED])}'; {hint}")


def _texts(array: Tensor) -> Tensor:
    if array.dtype.kind == "b":
        words = np.where(array, "true", "false")
    else:
        real = array if array.dtype.kind != "V" else array.astype(np.float32)  # bfloat16
        words = real.astype(np.str_)
        if real.dtype.kind == "f":
            words = np.where(np.isfinite(real), words, "")
    made = np.empty(array.shape, np.object_)
    made.reshape(-1)[:] = [word.encode() for word in words.ravel().tolist()]
    return made


def check_number(count: int) -> None:
    """Raises InvalidArgument if a request has more cells than it may."""
    if count > MAX_CELLS:
        raise InvalidArgument(f"the request has more than {MAX_CELLS} cells; send fewer rows")
