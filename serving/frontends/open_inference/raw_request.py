"""Raw mode of HTTP: the body is the one input of a model, without any JSON."""

from __future__ import annotations

import math

import numpy as np

from crossfade.runtimes.core.dtypes import ITEMSIZE
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.serving.tensors.raw import RawTensor


def only_input(signature: Signature, body: bytes) -> RawTensor:
    """Makes the input of a body; a batch is of one row, and BYTES is one element.

    Raises:
        InvalidArgument: the model has several inputs, or one whose shape the size does not tell.
    """
    needed = [spec for spec in signature.inputs if not spec.optional] or signature.inputs
    if len(needed) != 1:
        raise InvalidArgument(
            f"a raw body is for models with one input; this one has {len(needed)}: send JSON"
        )
    spec = needed[0]
    dims = list(spec.shape if spec.shape is not None else (-1,))
    if signature.batched and dims:
        dims[0] = 1
    if spec.dtype == "BYTES":
        element = np.empty(1, dtype=np.object_)
        element[0] = body
        return RawTensor(spec.name, spec.dtype, tuple(abs(size) for size in dims), element)
    return RawTensor(spec.name, spec.dtype, _solved(spec, dims, len(body)), body)


def _solved(spec: TensorSpec, dims: list[int], size: int) -> tuple[int, ...]:
    """``dims`` with its one unknown filled in; what does not fit, the validator refuses."""
    unknown = [index for index, length in enumerate(dims) if length < 0]
    if len(unknown) > 1:
        raise InvalidArgument(
            f"the shape of input '{spec.name}' is not known from the size of a raw body: send JSON"
        )
    if unknown:
        known = ITEMSIZE[spec.dtype] * math.prod(length for length in dims if length >= 0)
        dims[unknown[0]] = max(1, size // max(1, known))
    return tuple(dims)
