"""Stack and cut apart: together they change nothing, for every dtype and shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Tensors,
    Timings,
)
from crossfade.serving.batching.stacking import key_of, stack, unstack

METADATA = ModelMetadata("m", 1, "fake", {})


@st.composite
def alike(draw: st.DrawFn) -> list[InferRequest]:
    """Requests that may be stacked: any number of inputs, dtypes, row shapes and rows."""
    inputs = draw(
        st.dictionaries(
            st.sampled_from("abc"),
            st.tuples(
                st.sampled_from(sorted(NUMPY)),
                st.lists(st.integers(1, 3), max_size=3).map(tuple),
            ),
            min_size=1,
        )
    )
    requests = []
    for rows in draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)):
        arrays = {
            name: array(draw, dtype, (rows, *shape)) for name, (dtype, shape) in inputs.items()
        }
        requests.append(InferRequest(arrays, "s", ("a",), rows=rows))
    return requests


def array(draw: st.DrawFn, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    if dtype == "BYTES":
        texts = np.empty(size, dtype=object)
        texts[:] = draw(st.lists(st.binary(max_size=3), min_size=size, max_size=size))
        return texts.reshape(shape)
    nbytes = size * NUMPY[dtype].itemsize
    data = draw(st.binary(min_size=nbytes, max_size=nbytes))
    if dtype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, NUMPY[dtype]).reshape(shape)


def content(found: np.ndarray) -> Any:
    return found.tolist() if found.dtype == object else found.tobytes()


@given(requests=alike())
def test_an_echo_gives_everybody_what_he_brought(requests: list[InferRequest]) -> None:
    assert len({key_of(one) for one in requests}) == 1
    stacked = stack(requests)
    assert stacked.rows == sum(one.rows for one in requests)
    assert (stacked.signature, stacked.outputs) == ("s", ("a",))
    echo = InferResponse(stacked.inputs, METADATA, Timings(0, 77, stacked.rows))
    waited = list(range(len(requests)))

    answers = unstack(echo, requests, waited)

    assert answers is not None
    assert len(answers) == len(requests)
    for index, (sent, got) in enumerate(zip(requests, answers, strict=True)):
        assert list(got.outputs) == list(sent.inputs)
        for name, original in sent.inputs.items():
            found = got.outputs[name]
            assert (found.shape, found.dtype) == (original.shape, original.dtype)
            assert content(found) == content(original)
        assert got.timings == Timings(index, 77, stacked.rows)
        assert got.model is METADATA


@given(requests=alike(), off=st.sampled_from([-1, 1]))
def test_outputs_without_a_row_for_each_row_are_not_cut(
    requests: list[InferRequest], off: int
) -> None:
    total = sum(one.rows for one in requests)
    right, wrong = np.zeros((total, 2)), np.zeros((total + off, 2))
    waited = [0] * len(requests)
    for outputs in (
        {"a": wrong},
        {"a": right, "b": wrong},
        {"a": right, "b": np.array(1.0)},
    ):
        assert unstack(InferResponse(outputs, METADATA), requests, waited) is None
    assert unstack(InferResponse({"a": right}, METADATA), requests, waited) is not None


BASE: Tensors = {"x": np.zeros((1, 2), np.float32), "y": np.zeros((1,), np.int64)}


def test_rows_parameters_and_priorities_do_not_keep_requests_apart() -> None:
    more: Tensors = {"y": np.ones((5,), np.int64), "x": np.ones((5, 2), np.float32)}
    one = InferRequest(BASE, id="a", priority=1, rows=1)
    other = InferRequest(more, id="b", priority=2, deadline_s=1.0, rows=5)
    assert key_of(one) == key_of(other)


@pytest.mark.parametrize(
    "other",
    [
        InferRequest(BASE, signature="another"),
        InferRequest(BASE, outputs=("z",)),
        InferRequest({"x": BASE["x"]}),
        InferRequest({**BASE, "z": BASE["y"]}),
        InferRequest({**BASE, "x": np.zeros((1, 3), np.float32)}),
        InferRequest({**BASE, "x": np.zeros((1, 2, 1), np.float32)}),
        InferRequest({**BASE, "x": np.zeros((1, 2), np.float64)}),
        InferRequest({**BASE, "y": np.zeros((1,), np.uint64)}),
    ],
    ids=["signature", "outputs", "fewer", "more", "size", "rank", "dtype", "sign"],
)
def test_requests_that_differ_have_other_keys(other: InferRequest) -> None:
    assert key_of(other) != key_of(InferRequest(BASE))


def test_every_dtype_has_a_key_of_its_own() -> None:
    keys = {key_of(InferRequest({"x": np.zeros((1,), dtype)})) for dtype in NUMPY.values()}
    assert len(keys) == len(NUMPY)


@pytest.mark.parametrize(
    ("deadlines_s", "wanted_s"),
    [((5.0, 9.0, 7.0), 9.0), ((5.0, None), None), ((None, None), None), ((4.0,), 4.0)],
)
def test_a_batch_is_wanted_as_long_as_any_of_its_requests(
    deadlines_s: tuple[float | None, ...], wanted_s: float | None
) -> None:
    x = {"x": np.zeros((1, 2), np.float32)}
    assert stack([InferRequest(x, deadline_s=d) for d in deadlines_s]).deadline_s == wanted_s
