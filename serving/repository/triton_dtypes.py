"""Triton's numbers of the element types, by our names and back."""

from __future__ import annotations

from typing import Final

from crossfade.serving.wire import model_config as wire

DTYPES: Final = {
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
WIRE_DTYPES: Final = {name: number for number, name in DTYPES.items()}
