"""Rows and columns of JSON to inputs, and outputs back; the names that they give."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferResponse,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.tensors import fit, json_rows, json_values, names
from crossfade.serving.tensors.raw import RawTensor

FLOATS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=3, max_side=3),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def inputs(*specs: TensorSpec) -> Signature:
    return Signature(specs, (TensorSpec("y", "FP32", None),))


def response(**outputs: Any) -> InferResponse:
    specs = tuple(TensorSpec(name, "FP32", None) for name in outputs)
    metadata = ModelMetadata("m", 1, "fake", {DEFAULT_SIGNATURE: Signature((), specs)}, {})
    return InferResponse({n: np.array(v) for n, v in outputs.items()}, metadata)


X = inputs(TensorSpec("x", "FP32", None))
AB = inputs(TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT32", (-1,)))


@given(FLOATS)
def test_rows_and_columns_are_the_same_tensor(values: Any) -> None:
    for document in ({"instances": values.tolist()}, {"inputs": values.tolist()}):
        asked = json_rows.ask(json.loads(json.dumps(document)), X)
        ((raw,),) = asked.parts
        assert (raw.name, raw.shape) == ("x", values.shape)
        assert raw.data.dtype == np.float32
        np.testing.assert_array_equal(raw.data, values)


@given(FLOATS)
def test_one_prediction_a_row(values: Any) -> None:
    asked = json_rows.ask({"instances": values.tolist()}, X)
    one = json.loads(asked.encode([response(y=values)]))["predictions"]
    np.testing.assert_array_equal(np.float32(one), values)
    two = json.loads(asked.encode([response(y=values, z=values)]))["predictions"]
    assert len(two) == len(values)
    np.testing.assert_array_equal(np.float32([row["z"] for row in two]), values)


def test_rows_of_a_model_that_takes_one_row() -> None:
    signature = inputs(TensorSpec("x", "FP32", (1, 2)))
    asked = json_rows.ask({"instances": [[1, 2], [3, 4]]}, signature)
    assert [raw.shape for (raw,) in asked.parts] == [(1, 2), (1, 2)]
    answers = [response(y=[[1.0]]), response(y=[[2.0]])]
    assert json.loads(asked.encode(answers)) == {"predictions": [[1], [2]]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "either"),
        ({"instances": [], "inputs": []}, "either"),
        ({"instances": {}}, "a list that is not empty"),
        ({"instances": [1]}, "several inputs: a, b"),
        ({"inputs": [1]}, "several inputs: a, b"),
        ({"instances": [{"a": [1, 2]}, {"b": 1}]}, "the same keys"),
        ({"instances": [{"a": [1, 2], "b": 1}, 7]}, "the same keys"),
        ({"inputs": {"a": [[1, 2]]}}, "Missing but required: {b}"),
        ({"inputs": {"a": [[1, 2]], "b": [1], "c": 1}}, "Sent extra: {c}"),
    ],
)
def test_what_is_no_request(document: Any, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        json_rows.ask(document, AB)
    assert says in caught.value.message


def test_values_without_the_names_of_a_table_s_columns() -> None:
    table = inputs(*(TensorSpec(n, "BYTES", (-1,), True, cells=True) for n in ("Age", "Sex")))
    with pytest.raises(InvalidArgument) as caught:
        json_rows.ask({"instances": [[22, "male"]]}, table)
    assert caught.value.message == (
        "'instances' is a list of values: send objects with a value for each column, {\"Age\": …}"
    )


def test_an_output_that_is_not_by_row() -> None:
    asked = json_rows.ask({"instances": [1.0, 2.0]}, X)
    with pytest.raises(InvalidArgument, match="inconsistent batch size: 3 expecting: 2"):
        asked.encode([response(y=[1, 2, 3])])


def test_a_long_refusal_is_cut() -> None:
    sent = [f"{i}{'n' * 100}" for i in range(1000)]
    with pytest.raises(InvalidArgument) as caught:
        names.check_inputs(X, sent)
    assert caught.value.message.endswith("...TRUNCATED")
    assert len(caught.value.message) < 1100


def test_outputs_by_name() -> None:
    names.check_outputs(X, ["y"])
    with pytest.raises(InvalidArgument, match="not found in signature: z"):
        names.check_outputs(X, ["y", "z"])
    with pytest.raises(InvalidArgument, match="duplicate"):
        names.check_outputs(X, ["y", "y"])


def test_a_missing_last_dimension_of_one() -> None:
    signature = inputs(TensorSpec("x", "FP32", (-1, 1)), TensorSpec("z", "FP32", (-1, 2)))
    raws = [RawTensor("x", "FP32", (3,), b""), RawTensor("z", "FP32", (3,), b"")]
    dimensions = fit.ends_in_one(signature)
    assert fit.widen(raws, dimensions)
    assert [raw.shape for raw in raws] == [(3, 1), (3,)]
    assert not fit.widen(raws, dimensions)
    found = fit.narrow(response(y=[[1], [2]], z=[[1, 2]], s=1)).outputs
    assert [a.shape for a in found.values()] == [(2,), (1, 2), ()]


def test_numbers_are_written_as_short_as_they_can_be() -> None:
    outputs = {"y": np.array([0.1, np.nan, np.inf], np.float32), "n": np.array([1])}
    values, odd = json_values.plain(outputs)
    assert json_values.dumps(values, odd) == b'{"y": [0.1, NaN, Infinity], "n": [1]}'
    values, odd = json_values.plain({"y": np.float32([[0.1]]), "s": np.array(np.float32(0.1))})
    assert json_values.dumps(values, odd) == b'{"y":[[0.1]],"s":0.1}'


# -- two forms of one input ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["file", "pixels"])
def test_values_say_which_form_is_meant(name: str) -> None:
    other = TensorSpec("pixels", "UINT8", (-1, 2))
    signature = inputs(
        TensorSpec(name, "BYTES", (-1,), alternative=other),
        TensorSpec("key", "BYTES", (-1,), optional=True),
    )
    for rows in ([{name: {"b64": "YQ=="}, "key": "1"}], [{"b64": "YQ=="}], ["a"]):
        ((raw, *_),) = json_rows.ask({"instances": rows}, signature).parts
        assert (raw.name, raw.dtype, raw.shape) == (name, "BYTES", (1,))
        assert list(raw.data) == [b"a"]
    for document in (
        {"instances": [{"pixels": [1, 2]}, {"pixels": [3, 4]}]},
        {"inputs": {"pixels": [[1, 2], [3, 4]]}},
    ):
        ((raw,),) = json_rows.ask(document, signature).parts
        assert (raw.name, raw.dtype, raw.shape) == ("pixels", "UINT8", (2, 2))
    with pytest.raises(InvalidArgument, match="Missing but required"):
        json_rows.ask({"instances": [{"key": "1"}]}, signature)
    with pytest.raises(InvalidArgument, match="not a string"):
        json_rows.ask({"instances": [{name: {"b": 1}}]}, signature)
