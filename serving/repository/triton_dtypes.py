"""Triton's numbers of the element types, by our names and back."""

from __future__ import annotations

from typing import Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.wire import model_config as wire

_DTYPES: Final = {
    wire.TYPE_BOOL: "BOOL",
    wire.TYPE_UINT8: "UINT8",
    wire.TYPE_UINT16: "UINT16",
    wire.TYPE_UINT32: "UINT32",
    wire.TYPE_UINT64: "UINT64",
    wire.TYPE_INT8: "INT8",
    wire.TYPE_INT16: "INT16",
    wire.TYPE_INT32: "INT32",
    wire.TYPE_INT64: "INT64",
    wire.TYPE_FP16: "FP16",
    wire.TYPE_FP32: "FP32",
    wire.TYPE_FP64: "FP64",
    wire.TYPE_STRING: "BYTES",
    wire.TYPE_BF16: "BF16",
}
WIRE_DTYPES: Final = {name: number for number, name in _DTYPES.items()}


def dtype_of(number: wire.DataType) -> str:
    """Our name of a Triton data type; raises LoadFailed for a number that is none."""
    if number not in _DTYPES:
        raise LoadFailed(f"there is no data type {number}")
    return _DTYPES[number]
