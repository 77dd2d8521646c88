"""Element types that ONNX Runtime's Python interface does not take as they are.

BYTES: it wants ``str`` and gives ``str``, as UTF-8; bytes that are not UTF-8 cannot pass.
BF16: numpy arrays of ``ml_dtypes.bfloat16`` are refused on the way in and out; the same 16 bits
go in as an OrtValue over a uint16 view (no copy) and come out by address (one copy).
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

_ONNX_BFLOAT16: Final = 16  # onnx.TensorProto.BFLOAT16


def strings_in(name: str, array: Tensor) -> Tensor:
    """Returns an object array of ``str`` for one of ``bytes``.

    Raises:
        InvalidArgument: an element is not UTF-8.
    """
    texts = np.empty(array.shape, dtype=object)
    try:
        texts.reshape(-1)[:] = [element.decode() for element in array.reshape(-1)]
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"input '{name}' holds bytes that are not UTF-8: ONNX string tensors are text"
        ) from None
    return texts


def strings_out(array: Tensor) -> Tensor:
    """Returns an object array of ``bytes`` for one of ``str``."""
    out = np.empty(array.shape, dtype=object)
    out.reshape(-1)[:] = [element.encode() for element in array.reshape(-1)]
    return out


def value_in(array: Tensor, ort: Any) -> Any:
    """Wraps a numeric array as an OrtValue over the same memory."""
    contiguous = np.ascontiguousarray(array)
    if array.dtype == NUMPY["BF16"]:
        bits = contiguous.view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(contiguous)


def value_out(value: Any) -> Tensor:
    """Copies an OrtValue in host memory to an array of the caller's own."""
    if value.element_type() != _ONNX_BFLOAT16:
        array: Tensor = value.numpy()
        return array
    bits = np.empty(value.shape(), dtype=np.uint16)
    ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits.view(NUMPY["BF16"])
