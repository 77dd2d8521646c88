"""Element types: the protocol's names and numpy's, each for each."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from crossfade.runtimes.core.dtypes import ITEMSIZE, NUMPY, name_of

# The names and sizes of the Open Inference Protocol v2, with Triton's BF16.
SIZES = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
}


def test_the_names_and_sizes_are_the_protocols() -> None:
    assert ITEMSIZE == SIZES
    assert NUMPY.keys() == {*SIZES, "BYTES"}


@pytest.mark.parametrize("name", sorted(NUMPY))
def test_names_and_dtypes_are_each_others(name: str) -> None:
    assert name_of(NUMPY[name]) == name
    assert name_of(np.zeros(1, NUMPY[name]).dtype) == name


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_order_of_bytes_is_no_part_of_the_type(name: str) -> None:
    assert name_of(NUMPY[name].newbyteorder(">")) == name


@pytest.mark.parametrize("dtype", ["S5", "U5", "S", "U"])
def test_texts_of_numpy_are_bytes(dtype: str) -> None:
    assert name_of(np.dtype(dtype)) == "BYTES"


@pytest.mark.parametrize("dtype", ["c8", "c16", "M8[s]", "m8[s]", "V4", ml_dtypes.float8_e5m2])
def test_what_has_no_name(dtype: object) -> None:
    with pytest.raises(KeyError):
        name_of(np.dtype(dtype))  # type: ignore[call-overload]


def test_names_are_those_of_the_client_library() -> None:
    utils = pytest.importorskip("tritonclient.utils")
    for name, dtype in NUMPY.items():
        if name not in {"BF16", "BYTES"}:
            assert utils.np_to_triton_dtype(dtype) == name
            assert np.dtype(utils.triton_to_np_dtype(name)) == dtype
