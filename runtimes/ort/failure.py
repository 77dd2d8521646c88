"""ONNX Runtime's exceptions, told apart: whose fault was it?"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    ResourceExhausted,
)
from crossfade.runtimes.core.model import Signature, Tensors
from crossfade.runtimes.reason import one_line

_log = logging.getLogger(__name__)
# "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : ", then the node that said it.
_PREFIX: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^.*?Status Message: ", re.DOTALL)
# "/onnxruntime_src/onnxruntime/core/bfc_arena.cc:360 void* onnxruntime::f(size_t, bool) ", or
# "provider_options_utils.h:187 Parse " further on.
_PLACE: Final = re.compile(
    r"/\S+\.(?:cc|cpp|cu|h):\d+ [^()]*\([^)]*\) |\b\w+\.(?:cc|cpp|cu|h):\d+ \w+(?:\(\))? "
)
# "CUDA failure 101: invalid device ordinal", before the machine's name and a line of C++.
_CUDA: Final = re.compile(r"\w+ failure \d+: [^;]*")
_NO_MEMORY: Final = re.compile(
    r"failed to allocate memory|smaller than requested bytes|out of memory|ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


def plain(error: BaseException) -> str:
    """What an ONNX Runtime error says, without its code, node names and places in the source."""
    text = _PLACE.sub("", str(error))
    for _ in range(2):
        text = _PREFIX.sub("", text, count=1)
    cuda = _CUDA.search(text)
    return (cuda[0] if cuda else text).strip()


def of_run(
    error: Exception, inputs: Tensors, signature: Signature, dimensions: Mapping[str, list[object]]
) -> CrossfadeError:
    """Translates what a run raised.

    ONNX Runtime marks refused values (an index too large) as InvalidArgument. A shape that only
    breaks inside the graph comes as a general failure: it is the request's fault only if the
    inputs, looked at again, do not fit what the model declares. Memory that could not be had is
    told by its text: ONNX Runtime has no code for it.

    Args:
        error: what was raised.
        inputs: what was fed.
        signature: what was declared.
        dimensions: each input's dimensions as the model has them: sizes, names or ``None``.
    """
    if type(error).__name__ == "InvalidArgument":
        refused: CrossfadeError = InvalidArgument(
            f"the model refused the inputs: {one_line(plain(error))}"
        )
    elif _NO_MEMORY.search(str(error)):
        refused = ResourceExhausted("there is not enough memory for a run of these sizes")
    elif misfit := _misfit(inputs, signature, dimensions):
        refused = InvalidArgument(misfit)
    else:
        return Internal.hide(error, _log, "an ONNX Runtime run")
    refused.__cause__ = error
    return refused


def _misfit(
    inputs: Tensors, signature: Signature, dimensions: Mapping[str, list[object]]
) -> str | None:
    sizes: dict[object, int] = {}
    for spec in signature.inputs:
        array = inputs.get(spec.name)
        if array is None:
            return f"input '{spec.name}' is missing"
        if not isinstance(array, np.ndarray) or array.dtype != NUMPY[spec.dtype]:
            return f"input '{spec.name}' must be {spec.dtype}"
        if spec.shape is None:
            continue
        if array.ndim != len(spec.shape):
            return f"input '{spec.name}' has rank {array.ndim}, the model wants {len(spec.shape)}"
        for want, got in zip(dimensions[spec.name], array.shape, strict=True):
            fixed = want if isinstance(want, int) and want >= 0 else None
            expected = sizes.setdefault(want, got) if isinstance(want, str) else fixed
            if expected not in (None, got):
                return f"input '{spec.name}' has a dimension of {got}, expected {expected}"
    return None
