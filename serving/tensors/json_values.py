"""JSON values to inputs, outputs to JSON values."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, escape
from crossfade.runtimes.core.model import Tensor, TensorSpec
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.strict_json import to_array

_BASE64: Final = "b64"
# Outputs of bytes that are no text have names that say so.
_BINARY_SUFFIX: Final = "_bytes"
Shape = tuple[int, ...]


def is_bytes(value: Any) -> bool:
    """Whether it is ``{"b64": …}``, which stands for a value and not for an object."""
    return isinstance(value, dict) and value.keys() == {_BASE64}


def to_bytes(name: str, value: Any) -> bytes:
    """A string or ``{"b64": …}`` as bytes.

    Raises:
        InvalidArgument: it is neither, or not base64.
    """
    if isinstance(value, str):
        return value.encode()
    if not is_bytes(value) or not isinstance(value[_BASE64], str):
        raise InvalidArgument(f"input '{escape(name)}' has a value that is not a string")
    text = value[_BASE64]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"input '{escape(name)}' has a value that is not base64") from None


def to_raw(spec: TensorSpec, values: Any) -> RawTensor:
    """Makes an input of nested lists; its shape is theirs.

    Raises:
        InvalidArgument: a value is of another kind or does not fit, or the nesting is ragged.
    """
    if spec.dtype != "BYTES":
        array = to_array(spec.name, spec.dtype, values, NUMPY[spec.dtype], nonfinite=True)
        return RawTensor(spec.name, spec.dtype, array.shape, array)
    flat: list[bytes] = []
    shape = _collect(spec.name, values, flat)
    elements = np.empty(len(flat), np.object_)
    elements[:] = flat
    return RawTensor(spec.name, spec.dtype, shape, elements)


def _collect(name: str, values: Any, flat: list[bytes]) -> Shape:
    """Appends the elements in order; returns the shape."""
    if not isinstance(values, list):
        flat.append(to_bytes(name, values))
        return ()
    shapes = {_collect(name, item, flat) for item in values}
    if len(shapes) > 1:
        raise InvalidArgument(f"input '{name}' has rows of different lengths")
    return (len(values), *(shapes.pop() if shapes else ()))


def plain(outputs: Mapping[str, Tensor]) -> tuple[dict[str, Any], bool]:
    """Outputs as values for ``dumps``: arrays, or lists where JSON needs more care.

    Returns:
        The values by name, and whether NaN or infinity is among them.

    Raises:
        FailedPrecondition: an output holds bytes that are no text.
    """
    numbers = {
        name: array if array.dtype.kind != "V" else array.astype(np.float32)  # bfloat16
        for name, array in outputs.items()
    }
    odd = any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in numbers.values())
    return {name: _plain(name, array, odd) for name, array in numbers.items()}, odd


def _plain(name: str, array: Tensor, odd: bool) -> Any:
    if array.dtype == np.object_:
        texts = np.empty(array.shape, np.object_)
        for place, element in np.ndenumerate(array):
            texts[place] = _text(name, element)
        return texts.tolist()
    if odd and array.dtype.kind == "f":  # by way of text: the shortest one, and not a double's
        return array.astype(np.str_).astype(np.float64).tolist()
    if odd or not array.ndim:
        return array.tolist() if array.dtype.kind != "f" else array[()]
    return np.ascontiguousarray(array)


def _text(name: str, element: bytes) -> Any:
    if name.endswith(_BINARY_SUFFIX):
        return {_BASE64: base64.b64encode(element).decode()}
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise FailedPrecondition(
            f"output '{name}' holds bytes that are not UTF-8 text, and its name does not end in"
            f" '{_BINARY_SUFFIX}'; ask for it over gRPC"
        ) from None


def dumps(document: Any, odd: bool) -> bytes:
    """Writes JSON; ``odd`` is whether NaN and infinity are to be written as TensorFlow does."""
    if odd:
        return json.dumps(document, ensure_ascii=False).encode()
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
