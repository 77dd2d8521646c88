"""Cells of a table, out of JSON and out of tensors of numbers."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import ModelMetadata, Signature, TensorSpec
from crossfade.serving.tensors import cells, json_rows, names
from crossfade.serving.tensors.layout import Layout
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.validator import Validator

AGE = TensorSpec("age", "BYTES", (-1,), True, cells=True)
SEX = TensorSpec("sex", "BYTES", (-1,), True, cells=True)
TAGS = TensorSpec("tags", "BYTES", (-1, -1), True, cells=True)
PACKED = TensorSpec("inputs", "BYTES", (-1,), True)
TABLE = Signature((AGE, SEX, TAGS, PACKED), (TensorSpec("y", "FP32", (-1,)),), batched=True)
VALIDATOR = Validator(ModelMetadata("M", 1, "fake", {"s": TABLE}, max_batch_size=4096), "s")


def asked(document: Any) -> dict[str, Any]:
    (part,) = json_rows.ask(document, TABLE).parts
    arrays, _ = VALIDATOR.inputs(part)
    return {name: array.tolist() for name, array in arrays.items()}


def test_rows_may_have_different_keys() -> None:
    rows = [{"age": 3}, {"sex": "male", "age": None}, {"tags": ["a", 2]}, {}]
    assert asked({"instances": rows}) == {
        "age": [b"3", b"", b"", b""],
        "sex": [b"", b"male", b"", b""],
        "tags": [[b"", b""], [b"", b""], [b"a", b"2"], [b"", b""]],
    }
    assert asked({"instances": [{}, {}]}) == {"age": [b"", b""]}


def test_columns_and_packed_rows() -> None:
    assert asked({"inputs": {"age": [1, None, True, 2.5, "x"]}}) == {
        "age": [b"1", b"", b"true", b"2.5", b"x"]
    }
    assert asked({"instances": [{"b64": "YQ=="}, {"b64": "Yg=="}]}) == {"inputs": [b"a", b"b"]}
    assert asked({"inputs": {"inputs": ["a"]}}) == {"inputs": [b"a"]}
    assert asked({"instances": [{"inputs": {"b64": "YQ=="}}]}) == {"inputs": [b"a"]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"instances": [{"agee": 1}]}, "no column 'agee'; did you mean 'age'"),
        ({"instances": [{"qqqq": 1}]}, "no column 'qqqq'; the table has 3 columns"),
        ({"instances": [{"age": 1}, 2]}, "instance 1 is not an object of columns"),
        ({"instances": [{"age": [1]}]}, "column 'age' has a value that is a list"),
        ({"instances": [{"age": {"b": 1}}]}, "column 'age' has a value that is an object"),
        ({"instances": [{"tags": "a"}]}, "column 'tags' is declared an array"),
        ({"instances": [{"tags": [["a"]]}]}, "column 'tags' has a value that is a list"),
        ({"inputs": {"age": 1}}, "column 'age' must be a list"),
        ({"inputs": {"age": [1], "sex": ["m", "f"]}}, "batch size does not match"),
        ({"inputs": {"agee": [1]}}, "no column 'agee'"),
        ({"inputs": {"age": [1] * (2**20 + 1)}}, "more than 1048576 cells"),
        ({"inputs": {"age": [1] * 2**19, "sex": [2] * (2**19 + 1)}}, "more than 1048576 cells"),
        ({"instances": [{"tags": ["a"] * 2000}] + [{"tags": None}] * 600}, "1048576 cells"),
    ],
)
def test_what_is_no_table_is_refused(document: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        asked(document)


def test_many_columns_in_many_rows_are_refused_before_they_are_made() -> None:
    columns = tuple(TensorSpec(f"c{i}", "BYTES", (-1,), True, cells=True) for i in range(3000))
    wide = Signature(columns, (), batched=True)
    instances = [{f"c{i}": 1} for i in range(3000)]
    with pytest.raises(InvalidArgument, match="1048576 cells"):
        json_rows.ask({"instances": instances}, wide)


@given(
    st.lists(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        min_size=1,
    )
)
def test_json_values_keep_what_they_are(values: list[Any]) -> None:
    array = cells.to_raw(AGE, json.loads(json.dumps(values))).data
    assert isinstance(array, np.ndarray)
    for value, cell in zip(values, array.tolist(), strict=True):
        if value is None:
            assert cell == b""
        elif isinstance(value, str):
            assert cell.decode() == value
        else:
            assert json.loads(cell) == value
            assert type(json.loads(cell)) is type(value)


@given(st.sampled_from(sorted(set(NUMPY) - {"BYTES", "BOOL"})), st.data())
def test_numbers_are_read_back_as_they_were(dtype: str, data: st.DataObject) -> None:
    kind = NUMPY[dtype]
    raw = data.draw(st.binary(min_size=kind.itemsize * 3, max_size=kind.itemsize * 3))
    array = np.frombuffer(raw, kind)
    (found,) = cells.texts({"x": array}).values()
    for value, cell in zip(array, found.tolist(), strict=True):
        if np.isfinite(float(value)):
            back = np.array([float(cell)]).astype(kind) if kind.kind in "fV" else int(cell)
            assert back == value
        else:
            assert cell == b""


def test_tensors_of_numbers_take_the_place_of_cells() -> None:
    for dtype, values, want in (
        ("INT64", np.array([1, -2], np.int64), [b"1", b"-2"]),
        ("FP32", np.array([0.1, np.nan], np.float32), [b"0.1", b""]),
        ("FP64", np.array([22.0, np.inf]), [b"22.0", b""]),
        ("BF16", np.array([0.5, 2], ml_dtypes.bfloat16), [b"0.5", b"2.0"]),
        ("BOOL", np.array([True, False]), [b"true", b"false"]),
    ):
        layout = Layout((("age", dtype, (2,)),))
        for _ in range(2):
            raw = RawTensor("age", dtype, (2,), values.tobytes())
            arrays, rows = VALIDATOR.inputs([raw], layout)
            assert arrays["age"].tolist() == want
            assert rows == 2
    table = RawTensor("tags", "UINT8", (1, 2), b"\x01\x02")
    assert VALIDATOR.inputs([table])[0]["tags"].tolist() == [[b"1", b"2"]]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (RawTensor("age", "INT64", (2,), b"\0" * 8), "byte size mismatch"),
        (RawTensor("age", "INT8", (2, 1), b"\0" * 2), "unexpected shape"),
        (RawTensor("age", "NONE", (2,), b"\0" * 2), "expects 'BYTES'"),
        (RawTensor("age", "INT8", (5000,), b"\0" * 5000), "batch-size must be <= 4096"),
        (RawTensor("tags", "INT8", (2, 2**20), b"\0" * 2**21), "1048576 cells"),
        (RawTensor("inputs", "INT8", (1,), b"\0"), "expects 'BYTES'"),
        (RawTensor("Age", "INT8", (1,), b"\0"), "did you mean 'age'"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(raw: RawTensor, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        VALIDATOR.inputs([raw])


def test_the_nearest_column_is_named_in_every_protocol() -> None:
    with pytest.raises(InvalidArgument, match="no column 'ages'; did you mean 'age'"):
        names.check_inputs(TABLE, ["ages"])
    long = "x" * 2_000_000
    assert len(cells.unknown(long, [long[:1000]] * 100).message) < 300
