"""Inputs of one dimension less than the signature says, as TensorFlow Serving takes them.

It does not check shapes: rows of one number are sent as [N] to models that were exported with
[N, 1], by its own documentation too, and the answer has the shape of what was sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from crossfade.runtimes.core.model import InferResponse, Signature
from crossfade.serving.tensors.raw import RawTensor


def ends_in_one(signature: Signature) -> Mapping[str, int]:
    """The number of dimensions of each input whose last one is 1."""
    return {s.name: len(s.shape) for s in signature.inputs if s.shape and s.shape[-1] == 1}


def widen(inputs: Sequence[RawTensor], dimensions: Mapping[str, int]) -> bool:
    """Gives inputs the last dimension of 1 that they lack; returns whether any lacked it.

    Args:
        inputs: are changed.
        dimensions: see ``ends_in_one``.
    """
    changed = False
    for raw in inputs:
        if 0 < len(raw.shape) == dimensions.get(raw.name, 0) - 1:
            raw.shape = (*raw.shape, 1)
            changed = True
    return changed


def narrow(response: InferResponse) -> InferResponse:
    """Takes the last dimension of 1 from the outputs that have one."""
    outputs = {
        name: array[..., 0] if array.ndim > 1 and array.shape[-1] == 1 else array
        for name, array in response.outputs.items()
    }
    return dataclasses.replace(response, outputs=outputs)
