"""What another server answered, checked against the signature before anybody computes with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crossfade.runtimes.core.dtypes import ITEMSIZE, NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Tensor, Tensors, TensorSpec
from crossfade.serving.remote.contract import Ask
from crossfade.serving.tensors.raw import RawTensor, decode_bytes
from crossfade.serving.tensors.validator import MAX_DIMENSIONS, MAX_ELEMENTS


def tensors(ask: Ask, raws: Sequence[RawTensor]) -> Tensors:
    """Returns the outputs that were asked for, in that order, as arrays of their own.

    Raises:
        InvalidArgument: one is missing, or not as the signature has it.
    """
    found = {raw.name: raw for raw in raws}
    specs = {spec.name: spec for spec in ask.signature.outputs}
    missing = [name for name in ask.outputs if name not in found]
    if missing:
        raise InvalidArgument(f"output '{missing[0]}' is missing")
    rows = next((given.shape[:1] for given in ask.inputs.values()), ())
    arrays = {name: _array(found[name], specs[name]) for name in ask.outputs}
    for name, array in arrays.items():
        if ask.signature.batched and array.shape[:1] != rows:
            raise InvalidArgument(f"output '{name}' has shape {array.shape} for {rows} rows")
    return arrays


def _array(raw: RawTensor, spec: TensorSpec) -> Tensor:
    shape = raw.shape
    if raw.dtype != spec.dtype:
        raise InvalidArgument(f"output '{spec.name}' is {escape(raw.dtype)}, not {spec.dtype}")
    # Dimensions first: the product of a million of them would take hours.
    if len(shape) > MAX_DIMENSIONS or not _fits(shape, spec.shape):
        shown = list(shape[:MAX_DIMENSIONS])
        raise InvalidArgument(f"output '{spec.name}' has shape {shown}, not {spec.shape}")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise InvalidArgument(f"output '{spec.name}' has {count} elements")
    data = raw.data
    dtype = NUMPY[spec.dtype]
    if isinstance(data, np.ndarray):
        if data.size != count or data.dtype != dtype:
            raise InvalidArgument(f"output '{spec.name}' has {data.size} elements, not {count}")
        array = data.reshape(shape)
        return array if array.flags.writeable else array.copy()
    if spec.dtype == "BYTES":
        return decode_bytes(data, count, spec.name).reshape(shape)
    if len(data) != count * ITEMSIZE[spec.dtype]:
        raise InvalidArgument(f"output '{spec.name}' has {len(data)} bytes for {count} elements")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _fits(shape: Sequence[int], wanted: Sequence[int] | None) -> bool:
    if any(size < 0 for size in shape):
        return False
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(
        w in (-1, size) for size, w in zip(shape, wanted, strict=True)
    )
