"""The signatures of a TFLite model, from its tensors and from what a trial run showed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossfade.runtimes.core.dtypes import name_of
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.runtimes.litert.interpreter import Call
from crossfade.runtimes.litert.quantization import Parameters
from crossfade.runtimes.litert.rows import Trial

Shape = tuple[int, ...]


def read(call: Call, tried: Trial, dequantize: bool) -> Signature:
    """Returns one signature.

    Args:
        call: the signature to describe.
        tried: what a trial showed; if rows may be stacked, leading dimensions become -1.
        dequantize: quantised tensors are FP32 to the outside.
    """
    any_rows = tried.stackable
    inputs = [
        TensorSpec(name, _dtype(name, d, dequantize), _rows(_declared(d), any_rows))
        for name, d in call.inputs.items()
    ]
    outputs = [
        TensorSpec(
            name, _dtype(name, d, dequantize), _rows(_seen(d, tried.shapes.get(name)), any_rows)
        )
        for name, d in tried.outputs.items()
    ]
    return Signature(tuple(inputs), tuple(outputs), batched=any_rows and bool(inputs))


def quantized(details: Mapping[str, Any]) -> Parameters | None:
    """Returns scale and zero point of a tensor that is quantised as a whole."""
    scale, zero_point = details["quantization"]
    return (float(scale), int(zero_point)) if scale else None


def _dtype(name: str, details: Mapping[str, Any], dequantize: bool) -> str:
    if dequantize and quantized(details):
        return "FP32"
    try:
        return name_of(np.dtype(details["dtype"]))
    except KeyError:
        raise LoadFailed(
            f"tensor '{name}' is {details['dtype'].__name__}, which cannot be served"
        ) from None


def _declared(details: Mapping[str, Any]) -> Shape:
    # The signature has the -1; it is empty where the converter wrote none.
    signature, shape = details["shape_signature"], details["shape"]
    return tuple(int(size) for size in (signature if len(signature) == len(shape) else shape))


def _seen(details: Mapping[str, Any], seen: Shape | None) -> Shape | None:
    """An output is what was declared where a run agrees; post-processing often declares nothing."""
    declared = _declared(details)
    if seen is None:
        return declared or None
    if len(declared) != len(seen):
        return None
    return tuple(want if want == got else -1 for want, got in zip(declared, seen, strict=True))


def _rows(shape: Shape | None, any_rows: bool) -> Shape | None:
    return (-1, *shape[1:]) if any_rows and shape else shape
