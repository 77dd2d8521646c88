"""The signature of an ONNX graph: one, ``serving_default``."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.runtimes.ort.declared import ranked

_log = logging.getLogger(__name__)
_DTYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
# Names that exporters make up where they know none: equal dimensions may have different ones.
_MADE_UP: Final = re.compile(r"unk__\d+|\?|dynamic_axes?_?\d*|None", re.IGNORECASE)


def read(session: Any, path: Path) -> Signature:
    """Returns the signature of an ``onnxruntime.InferenceSession``.

    Initializers that could be overridden are not offered: files of IR version 3 list every weight
    that way, and a client must not overwrite weights. Outputs that are no tensors (a ZipMap's
    list of dicts) are left out while others remain.

    Raises:
        LoadFailed: an input, or every output, is of a kind that no protocol here can carry.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for value in inputs:
        if value.type not in _DTYPES:
            raise LoadFailed(f"input '{value.name}' is {value.type}, which cannot be served")
    kept = [value for value in outputs if value.type in _DTYPES]
    left_out = ", ".join(f"'{v.name}' ({v.type})" for v in outputs if v.type not in _DTYPES)
    if left_out and not kept:
        raise LoadFailed(
            f"no output is a tensor: {left_out}; export the model without ZipMap and sequences "
            "(skl2onnx: options={'zipmap': False})"
        )
    if left_out:
        _log.warning("outputs that are no tensors are not served: %s", left_out)
    unsure = any(not value.shape for value in (*inputs, *kept))
    known = ranked(path) if unsure else frozenset()
    signature = Signature.derive([_spec(v, known) for v in inputs], [_spec(v, known) for v in kept])
    if signature.batched and not _one_batch([v.shape[0] for v in (*inputs, *kept)]):
        return Signature(signature.inputs, signature.outputs)
    return signature


def _spec(value: Any, known: frozenset[str]) -> TensorSpec:
    dims = [d if isinstance(d, int) and d >= 0 else -1 for d in value.shape]
    shape = tuple(dims) if dims or value.name in known else None
    return TensorSpec(value.name, _DTYPES[value.type], shape)


def _one_batch(leading: Sequence[object]) -> bool:
    """Whether leading dimensions may all be the same: ``boxes[detections, 4]`` is no batch."""
    names = {d for d in leading if isinstance(d, str) and not _MADE_UP.fullmatch(d)}
    return len(names) <= 1
