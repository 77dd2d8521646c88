"""``TensorProto`` to an input, and an output to the bytes of a ``TensorProto``.

Answers carry typed values (``float_val`` …), as TensorFlow Serving's do: some clients read nothing
else. Packed floats are the array's own bytes, so that this costs no more than ``tensor_content``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY, name_of
from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Tensor
from crossfade.serving.frontends.tensorflow_serving.packed import varints
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.validator import MAX_DIMENSIONS
from crossfade.serving.wire import tf_framework as wire
from crossfade.serving.wire.fields import varint_bytes

Cut = Mapping[int, memoryview]
NO_CUT: Final[Cut] = {}
# One value may stand for a whole tensor; beyond this size that is an attack.
_MAX_REPEATED_BYTES: Final = 16 * 1024 * 1024
_CONTENT: Final = 4
# Up to so many integers protobuf packs faster than numpy.
_FEW: Final = 64


class _Kind(NamedTuple):
    """How one dtype travels: its number in TensorFlow, and the number of its typed field."""

    dtype: str
    number: wire.DataType
    field: int


_KINDS: Final = (
    _Kind("FP32", wire.DT_FLOAT, 5),
    _Kind("FP64", wire.DT_DOUBLE, 6),
    _Kind("INT32", wire.DT_INT32, 7),
    _Kind("UINT8", wire.DT_UINT8, 7),
    _Kind("INT16", wire.DT_INT16, 7),
    _Kind("INT8", wire.DT_INT8, 7),
    _Kind("UINT16", wire.DT_UINT16, 7),
    _Kind("BYTES", wire.DT_STRING, 8),
    _Kind("INT64", wire.DT_INT64, 10),
    _Kind("BOOL", wire.DT_BOOL, 11),
    _Kind("FP16", wire.DT_HALF, 13),
    _Kind("BF16", wire.DT_BFLOAT16, 13),
    _Kind("UINT32", wire.DT_UINT32, 16),
    _Kind("UINT64", wire.DT_UINT64, 17),
)
BY_NUMBER: Final = {kind.number: kind for kind in _KINDS}
BY_DTYPE: Final = {kind.dtype: kind for kind in _KINDS}
_FIELDS: Final = wire.TensorProto.DESCRIPTOR.fields_by_number
_INTEGERS: Final = {k.dtype: _FIELDS[k.field].name for k in _KINDS if "INT" in k.dtype}
_DTYPE_NAMES: Final = wire.TensorProto.DESCRIPTOR.file.enum_types_by_name[
    "DataType"
].values_by_number


def to_raw(name: str, tensor: Any, cut: Cut = NO_CUT) -> RawTensor:
    """Makes an input of a message.

    Args:
        name: the input's.
        tensor: a ``TensorProto``.
        cut: fields that were cut out of it (``tensor_content``, ``float_val``, ``double_val``),
            by number.

    Raises:
        InvalidArgument: the message contradicts itself, or no signature can take it.
    """
    kind = BY_NUMBER.get(tensor.dtype)
    if kind is None:
        known = _DTYPE_NAMES.get(tensor.dtype)
        what = known.name if known else f"of data type {tensor.dtype}"
        raise InvalidArgument(f"input '{escape(name)}' is {what}, which is not supported")
    shape = tensor.tensor_shape
    if shape.unknown_rank:
        raise InvalidArgument(f"input '{escape(name)}' has a shape of unknown rank")
    # Of a million dimensions no more are looked at than it takes to refuse them.
    few = shape.dim if len(shape.dim) <= MAX_DIMENSIONS else shape.dim[: MAX_DIMENSIONS + 1]
    dims = tuple([dim.size for dim in few])
    values: Any = None
    fields = [(field.number, value) for field, value in tensor.ListFields()]
    if cut:
        fields += cut.items()
    for field, value in fields:
        if field < _CONTENT:
            continue
        if values is not None or field not in (kind.field, _CONTENT):
            raise _mismatch(name, kind, field)
        if field == _CONTENT and kind.dtype == "BYTES":
            raise _mismatch(name, kind, field)
        values = value if field == _CONTENT else _typed(name, kind, value, dims)
    if values is None:
        raise InvalidArgument(f"input '{escape(name)}' has no values")
    return RawTensor(name, kind.dtype, dims, values)


def _mismatch(name: str, kind: _Kind, field: int) -> InvalidArgument:
    typed = _FIELDS[kind.field].name
    allowed = typed if kind.dtype == "BYTES" else f"{typed} or tensor_content"
    return InvalidArgument(
        f"input '{escape(name)}' is {_DTYPE_NAMES[kind.number].name} with"
        f" {_FIELDS[field].name}; it must have {allowed}, and nothing else"
    )


def _typed(name: str, kind: _Kind, values: Any, dims: tuple[int, ...]) -> Tensor | memoryview:
    """Typed values as a flat array, or the packed bytes that were cut out as they are."""
    target = NUMPY[kind.dtype]
    if isinstance(values, memoryview):
        if len(values) != target.itemsize:
            return values
        array: Tensor = np.frombuffer(values, target)
    elif kind.dtype == "BYTES":
        array = np.empty(len(values), np.object_)
        array[:] = list(values)
    else:
        stored = np.dtype(np.uint16) if kind.field == 13 else target  # halves travel as their bits
        try:
            array = np.fromiter(values, stored, len(values)).view(target)
        except OverflowError:
            raise InvalidArgument(
                f"input '{escape(name)}' has a value that"
                f" {_DTYPE_NAMES[kind.number].name} cannot hold"
            ) from None
    if array.size != 1 or not dims or len(dims) > MAX_DIMENSIONS or min(dims) <= 0:
        return array
    count = math.prod(dims)
    size = len(array[0]) if kind.dtype == "BYTES" else target.itemsize
    if count > 1 and count * max(size, 8) > _MAX_REPEATED_BYTES:
        raise InvalidArgument(
            f"input '{escape(name)}' has one value for {count} elements; send them all"
        )
    return np.broadcast_to(array, dims)


def tensor_bytes(array: Tensor) -> tuple[bytes, bytes | memoryview]:
    """The bytes of an output's ``TensorProto``: what stands before the values, and these."""
    dtype = name_of(array.dtype)
    if dtype == "BYTES":
        data = [part for e in array.ravel().tolist() for part in (b"\x42", varint_bytes(len(e)), e)]
        return _head(dtype, array.shape, 0), b"".join(data)
    if array.size <= _FEW and dtype in _INTEGERS:
        message = wire.TensorProto()
        getattr(message, _INTEGERS[dtype]).extend(array.ravel().tolist())
        return _head(dtype, array.shape, 0), message.SerializeToString()
    packed = _packed(dtype, array)
    return _head(dtype, array.shape, len(packed)), packed


def _packed(dtype: str, array: Tensor) -> bytes | memoryview:
    if dtype in ("FP32", "FP64", "BOOL"):
        if array.nbytes <= 4096:
            return array.tobytes()
        flat: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        return flat
    if dtype in ("FP16", "BF16"):
        array = np.ascontiguousarray(array).view(np.uint16)
    return varints(array.reshape(-1))


@functools.lru_cache(4096)
def _head(dtype: str, shape: tuple[int, ...], packed_bytes: int) -> bytes:
    """All but the values; with the head of the packed field that they are, if they are one."""
    tensor = wire.TensorProto(dtype=BY_DTYPE[dtype].number)
    tensor.tensor_shape.SetInParent()
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    data: bytes = tensor.SerializeToString()
    if packed_bytes:
        data += varint_bytes(BY_DTYPE[dtype].field << 3 | 2) + varint_bytes(packed_bytes)
    return data
