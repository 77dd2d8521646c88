"""Element types: the names of the Open Inference Protocol v2, each with its numpy dtype.

BYTES tensors are object arrays whose elements are ``bytes``. BF16 is ``ml_dtypes.bfloat16``, the
numpy extension type that TensorFlow, JAX and the Triton client use too.
"""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np

NUMPY: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BYTES": np.dtype(np.object_),
}
ITEMSIZE: Final[dict[str, int]] = {n: d.itemsize for n, d in NUMPY.items() if n != "BYTES"}
_NAMES: Final[dict[np.dtype[Any], str]] = {dtype: name for name, dtype in NUMPY.items()}


def name_of(dtype: np.dtype[Any]) -> str:
    """Returns the protocol's name of a numpy dtype; bytes and str kinds are BYTES.

    Raises:
        KeyError: the dtype (complex, datetime …) has no name in the protocol.
    """
    name = _NAMES.get(dtype)
    if name is not None:
        return name
    return "BYTES" if dtype.kind in "SU" else _NAMES[dtype.newbyteorder("=")]
