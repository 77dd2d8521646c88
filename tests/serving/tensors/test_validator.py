"""Every rule of the one place where requests are checked, and that good requests pass unchanged."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import ITEMSIZE, NUMPY
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import ModelMetadata, Signature, TensorSpec
from crossfade.serving.tensors.raw import RawTensor, encode_bytes
from crossfade.serving.tensors.validator import MAX_DIMENSIONS, MAX_ELEMENTS, Validator

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


def validator(
    *inputs: TensorSpec, outputs: Sequence[str] = ("y",), max_rows: int = 0, batched: bool = False
) -> Validator:
    signature = Signature(inputs, tuple(TensorSpec(n, "FP32", None) for n in outputs), batched)
    metadata = ModelMetadata("M", 1, "fake", {"s": signature}, max_batch_size=max_rows)
    return Validator(metadata, "s")


def zeros(name: str, dtype: str, *shape: int) -> RawTensor:
    return RawTensor(name, dtype, shape, bytes(math.prod(shape) * ITEMSIZE[dtype]))


MATRIX = validator(TensorSpec("X", "FP32", (-1, 3)), max_rows=4, batched=True)
PAIR = validator(
    TensorSpec("a", "FP32", (-1, 2)),
    TensorSpec("b", "INT32", (-1,)),
    TensorSpec("c", "INT32", (-1,), optional=True),
    max_rows=8,
    batched=True,
)
FREE = validator(TensorSpec("X", "FP32", None))
SCALAR = validator(TensorSpec("X", "INT64", ()))
TEXT = validator(TensorSpec("X", "BYTES", (-1,)))


@given(
    dtype=st.sampled_from(sorted(ITEMSIZE)),
    shape=SHAPES,
    skip=st.integers(0, 9),
    view=st.booleans(),
    data=st.data(),
)
def test_numbers_pass_as_read_only_views_of_the_same_bytes(
    dtype: str, shape: tuple[int, ...], skip: int, view: bool, data: st.DataObject
) -> None:
    size = math.prod(shape) * ITEMSIZE[dtype]
    sent = data.draw(st.binary(min_size=size, max_size=size))
    message = bytes(skip) + sent
    carried = memoryview(message)[skip:] if view else sent
    checked = validator(TensorSpec("X", dtype, tuple(-1 for _ in shape)))

    arrays, rows = checked.inputs([RawTensor("X", dtype, shape, carried)])

    array = arrays["X"]
    assert (array.shape, array.dtype, rows) == (shape, NUMPY[dtype], 1)
    assert array.tobytes() == sent
    assert array.flags.aligned
    origin = np.frombuffer(message if view else sent, np.uint8)
    if skip % ITEMSIZE[dtype] == 0 or not view:
        assert not array.flags.writeable
        assert np.shares_memory(array, origin), "an aligned tensor is not copied"


@given(
    shape=SHAPES.filter(lambda shape: math.prod(shape) <= 40),
    data=st.data(),
)
def test_texts_pass_unchanged(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = math.prod(shape)
    sent = data.draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
    wire = encode_bytes(np.array([*sent, None], dtype=object)[:-1])
    checked = validator(TensorSpec("X", "BYTES", tuple(-1 for _ in shape)))

    arrays, _ = checked.inputs([RawTensor("X", "BYTES", shape, wire)])

    assert arrays["X"].shape == shape
    assert arrays["X"].ravel().tolist() == sent
    assert encode_bytes(arrays["X"]) == wire


def test_an_array_of_typed_values_takes_the_shape_of_the_request() -> None:
    flat = np.arange(6, dtype=np.float32)
    arrays, rows = MATRIX.inputs([RawTensor("X", "FP32", (2, 3), flat)])
    assert rows == 2
    np.testing.assert_array_equal(arrays["X"], [[0, 1, 2], [3, 4, 5]])


def test_rows_are_those_of_the_batch_only_where_there_is_one() -> None:
    good = [zeros("a", "FP32", 5, 2), zeros("b", "INT32", 5)]
    assert PAIR.inputs(good)[1] == 5
    assert FREE.inputs([zeros("X", "FP32", 5)])[1] == 1
    assert SCALAR.inputs([zeros("X", "INT64")])[1] == 1


def test_an_optional_input_may_be_there_or_not() -> None:
    required = [zeros("a", "FP32", 1, 2), zeros("b", "INT32", 1)]
    assert PAIR.inputs(required)[0].keys() == {"a", "b"}
    assert PAIR.inputs([*required, zeros("c", "INT32", 1)])[0].keys() == {"a", "b", "c"}


REFUSED = {
    "one byte short": (
        MATRIX,
        [RawTensor("X", "FP32", (2, 3), bytes(23))],
        "input byte size mismatch for input 'X' for model 'M'. Expected 24, got 23",
    ),
    "one byte more": (
        MATRIX,
        [RawTensor("X", "FP32", (2, 3), bytes(25))],
        "input byte size mismatch for input 'X' for model 'M'. Expected 24, got 25",
    ),
    "no bytes": (
        MATRIX,
        [RawTensor("X", "FP32", (1, 3), b"")],
        "input byte size mismatch for input 'X' for model 'M'. Expected 12, got 0",
    ),
    "typed values, too few": (
        MATRIX,
        [RawTensor("X", "FP32", (1, 3), np.zeros(2, np.float32))],
        "input element size mismatch for input 'X' for model 'M'. Expected 3, got 2",
    ),
    "a fixed dimension of another size": (
        MATRIX,
        [zeros("X", "FP32", 1, 4)],
        "unexpected shape for input 'X' for model 'M'. Expected [-1,3], got [1,4]",
    ),
    "another rank": (
        MATRIX,
        [zeros("X", "FP32", 3)],
        "unexpected shape for input 'X' for model 'M'. Expected [-1,3], got [3]",
    ),
    "a shape for a scalar": (SCALAR, [zeros("X", "INT64", 1)], "Expected [], got [1]"),
    "a missing input": (
        PAIR,
        [zeros("a", "FP32", 1, 2)],
        "expected 3 inputs but got 1 inputs for model 'M'. Got input(s) ['a'], but missing"
        " required input(s) ['b']. Please provide all required input(s).",
    ),
    "no inputs": (PAIR, [], "missing required input(s) ['a', 'b']"),
    "an input twice": (
        PAIR,
        [zeros("a", "FP32", 1, 2), zeros("a", "FP32", 1, 2)],
        "input 'a' already exists in request",
    ),
    "an unknown input": (
        PAIR,
        [zeros("z", "FP32", 1, 2)],
        "unexpected inference input 'z' for model 'M'; it has ['a', 'b', 'c']",
    ),
    "an unknown input with control characters": (
        PAIR,
        [zeros("\x1b[31m\r\n" + "z" * 500, "FP32", 1)],
        r"unexpected inference input '\x1b[31m\r\nzzz",
    ),
    "another dtype": (
        MATRIX,
        [zeros("X", "FP64", 1, 3)],
        "inference input 'X' data-type is 'FP64', but model 'M' expects 'FP32'",
    ),
    "an unknown dtype": (
        MATRIX,
        [RawTensor("X", "FP31\n", (1, 3), bytes(12))],
        r"data-type is 'FP31\n', but model 'M' expects 'FP32'",
    ),
    "more rows than the model takes": (
        MATRIX,
        [zeros("X", "FP32", 5, 3)],
        "inference request batch-size must be <= 4 for 'M'",
    ),
    "inputs of different batches": (
        PAIR,
        [zeros("a", "FP32", 2, 2), zeros("b", "INT32", 3)],
        "input 'b' batch size does not match other inputs for model 'M': 3 and 2",
    ),
    "no rows": (MATRIX, [RawTensor("X", "FP32", (0, 3), b"")], "must be positive"),
    "a negative dimension": (
        FREE,
        [RawTensor("X", "FP32", (2, -3), bytes(12))],
        "input 'X' has a dimension of -3 in its shape [2,-3]; every dimension must be positive",
    ),
    "a dimension of 2^40": (
        FREE,
        [RawTensor("X", "FP32", (2**40,), bytes(64))],
        "exceeds the maximum allowed value",
    ),
    "a product that wraps to 0 in 64 bits": (
        FREE,
        [RawTensor("X", "FP32", (2**62, 4), b"")],
        "exceeds the maximum allowed value",
    ),
    "a product that wraps to 4 in 64 bits": (
        FREE,
        [RawTensor("X", "FP32", (2**33, 2**31, 1), bytes(16))],
        "exceeds the maximum allowed value",
    ),
    "one element too many": (
        FREE,
        [RawTensor("X", "FP32", (MAX_ELEMENTS + 1,), b"")],
        f"exceeds the maximum allowed value of {MAX_ELEMENTS} elements",
    ),
    "the most elements, and no bytes": (
        FREE,
        [RawTensor("X", "FP32", (MAX_ELEMENTS,), b"")],
        f"Expected {4 * MAX_ELEMENTS}, got 0",
    ),
    "one dimension too many": (
        FREE,
        [RawTensor("X", "FP32", (1,) * (MAX_DIMENSIONS + 1), bytes(4))],
        "exceeds the maximum allowed value",
    ),
    "a text that is said to be longer than the message": (
        TEXT,
        [RawTensor("X", "BYTES", (1,), b"\xff\xff\xff\xff")],
        "element 0 of BYTES input 'X' is said to have 4294967295 bytes, but 0 are left",
    ),
}


@pytest.mark.parametrize(("checked", "raws", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_and_how_it_is_said(
    checked: Validator, raws: Sequence[RawTensor], message: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked.inputs(raws)
    assert message in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1024


def test_the_most_dimensions_pass() -> None:
    shape = (1,) * MAX_DIMENSIONS
    assert FREE.inputs([zeros("X", "FP32", *shape)])[0]["X"].shape == shape


@pytest.mark.parametrize("size", [1, 2, 2**62])
def test_a_million_dimensions_are_refused_at_once(size: int) -> None:
    """Their product would take hours: it has as many digits as the message has bytes."""
    began_s = time.perf_counter()
    with pytest.raises(InvalidArgument, match="exceeds the maximum allowed value") as caught:
        FREE.inputs([RawTensor("X", "FP32", (size,) * 1_000_000, b"")])
    assert time.perf_counter() - began_s < 1
    assert len(caught.value.message) < 2048


def test_a_refused_request_makes_no_array_of_its_size() -> None:
    """2^31-1 texts are 16 GiB of pointers; the data has to be there first."""
    with pytest.raises(InvalidArgument, match="need at least"):
        TEXT.inputs([RawTensor("X", "BYTES", (MAX_ELEMENTS,), bytes(64))])


def test_bfloat16_is_the_type_that_other_libraries_use() -> None:
    checked = validator(TensorSpec("X", "BF16", (-1,)))
    sent = np.array([1.5, -2.0], dtype=ml_dtypes.bfloat16)
    arrays, _ = checked.inputs([RawTensor("X", "BF16", (2,), sent.tobytes())])
    assert arrays["X"].astype(np.float32).tolist() == [1.5, -2.0]


OUTPUTS = validator(TensorSpec("X", "FP32", None), outputs=("a", "b", "c"))


@pytest.mark.parametrize("names", [(), ("b",), ("c", "a"), ("a", "b", "c")])
def test_outputs_wanted_keep_the_order_of_the_request(names: tuple[str, ...]) -> None:
    assert OUTPUTS.outputs(list(names)) == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "z"], "unexpected inference output 'z' for model 'M'"),
        (["a\r\nb"], r"unexpected inference output 'a\r\nb'"),
        (["a", "b", "a"], "an output was requested more than once"),
    ],
)
def test_outputs_that_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        OUTPUTS.outputs(names)
    assert message in caught.value.message


# -- two forms of one input ---------------------------------------------------------------------

TENSOR = TensorSpec("pixels", "UINT8", (-1, 2))
NAMED = validator(
    TensorSpec("file", "BYTES", (-1,), alternative=TENSOR),
    TensorSpec("key", "BYTES", (-1,), optional=True),
    max_rows=4,
    batched=True,
)
SAME = validator(TensorSpec("pixels", "BYTES", (-1,), alternative=TENSOR), max_rows=4, batched=True)


def file(name: str, rows: int = 1) -> RawTensor:
    array = np.full(rows, b"f", np.object_)
    return RawTensor(name, "BYTES", (rows,), encode_bytes(array))


@pytest.mark.parametrize(("checks", "name"), [(NAMED, "file"), (SAME, "pixels")])
def test_either_form(checks: Validator, name: str) -> None:
    arrays, rows = checks.inputs([file(name, 3)])
    assert (list(arrays), rows) == ([name], 3)
    arrays, rows = checks.inputs([zeros("pixels", "UINT8", 2, 2)])
    assert (list(arrays), arrays["pixels"].shape, rows) == (["pixels"], (2, 2), 2)


@pytest.mark.parametrize(
    ("checks", "raws", "says"),
    [
        (NAMED, [file("file"), zeros("pixels", "UINT8", 1, 2)], "stand for one another"),
        (SAME, [file("pixels"), zeros("pixels", "UINT8", 1, 2)], "already exists"),
        (NAMED, [file("key")], "missing required input(s) ['file']"),
        (NAMED, [zeros("pixels", "FP32", 1, 2)], "expects 'UINT8'"),
        (SAME, [zeros("pixels", "FP32", 1, 2)], "expects 'BYTES'"),
        (NAMED, [zeros("pixels", "UINT8", 1, 3)], "Expected [-1,2], got [1,3]"),
        (NAMED, [zeros("pixels", "UINT8", 5, 2)], "batch-size must be <= 4"),
        (NAMED, [zeros("pixels", "UINT8", 2, 2), file("key", 3)], "does not match other inputs"),
        (NAMED, [zeros("file", "UINT8", 1, 2)], "expects 'BYTES'"),
    ],
)
def test_forms_that_do_not_fit(checks: Validator, raws: list[RawTensor], says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checks.inputs(raws)
    assert says in caught.value.message
