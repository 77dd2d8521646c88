"""Packed rows, read back: what a row says is what the model is given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.processing.packing import pack
from crossfade.serving.processing.table_schema import Column

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
# How a value of each type is written as a cell, and what it is as JSON.
VALUES = {
    "string": TEXTS.map(lambda text: (text.encode(), text)),
    "number": FINITE.map(lambda number: (repr(number).encode(), number)),
    "integer": st.integers(-(2**53), 2**53).map(lambda n: (b"%d" % n, float(n))),
    "boolean": st.booleans().map(lambda b: (str(b).lower().encode(), b)),
}
NOTHING = st.just((b"", None))


def column_of(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array


def unpacked(rows: np.ndarray[Any, Any]) -> list[Any]:
    return [json_format.MessageToDict(struct_pb2.Value.FromString(row)) for row in rows]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], dict[str, Any], list[dict[str, Any]]]:
    """Columns, their cells, and the rows that these are."""
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    count = draw(st.integers(1, 4))
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    columns, cells = [], {}
    for name in names:
        kind = draw(st.sampled_from(sorted(VALUES)))
        is_array = draw(st.booleans())
        columns.append(Column(name, kind, is_array, nullable=True))
        if draw(st.booleans()):
            continue  # a request may leave it out
        if is_array:
            lists = [
                [*draw(st.lists(VALUES[kind] | NOTHING, max_size=3)), draw(VALUES[kind])]
                if draw(st.booleans())
                else []
                for _ in range(count)
            ]
            table = np.full((count, max(1, *map(len, lists), 0)), b"", np.object_)
            for row, items in enumerate(lists):
                table[row, : len(items)] = [cell for cell, _ in items]
                rows[row][name] = [value for _, value in items] or None
            cells[name] = table
        else:
            drawn = [draw(VALUES[kind] | NOTHING) for _ in range(count)]
            cells[name] = column_of([cell for cell, _ in drawn])
            for row, (_, value) in enumerate(drawn):
                rows[row][name] = value
    return columns, cells, rows


@given(tables())
def test_rows_are_packed_as_they_are(table: Any) -> None:
    columns, cells, rows = table
    assert unpacked(pack(columns, cells, len(rows))) == rows


def test_the_bytes_of_a_row() -> None:
    (row,) = pack([Column("Age", "string")], {"Age": column_of([b"38.0"])}, 1)
    assert row == b"\x2a\x0f\x0a\x0d\x0a\x03Age\x12\x06\x1a\x0438.0"
    (row,) = pack([Column("Age", "string")], {}, 1)
    assert row == b"\x2a\x00"


@pytest.mark.parametrize(
    ("kind", "cell", "says"),
    [
        ("string", b"\xff", "the value in row 1 is not UTF-8 text"),
        ("number", b"many", "is no number: 'many'"),
        ("number", b"nan", "is no number"),
        ("number", b"1e999", "is no number"),
        ("number", b"1_000", "is no number"),
        ("number", b"\n" + b"x" * 10_000, "is no number"),
        ("integer", b"1.5", "is no whole number: '1.5'"),
        ("boolean", b"yes", "is no boolean: 'yes'"),
        ("number", b"", "has no value in row 1, and must have one"),
    ],
)
def test_values_of_another_type_are_refused(kind: str, cell: bytes, says: str) -> None:
    fine = {"string": b"x", "boolean": b"TRUE"}.get(kind, b" 1 ")
    for is_array in (False, True):
        column = Column("c", kind, is_array)
        cells = column_of([fine, cell])
        with pytest.raises(InvalidArgument) as told:
            pack([column], {"c": cells[:, None] if is_array else cells}, 2)
        assert "column 'c'" in told.value.message
        assert says in told.value.message
        assert len(told.value.message) < 200
        assert "\n" not in told.value.message


def test_what_may_be_missing() -> None:
    optional = Column("a", "string")
    nullable = Column("b", "number", nullable=True, required=True)
    needed = Column("c", "boolean", required=True)
    cells = {"c": column_of([b"0"])}
    assert unpacked(pack([optional, nullable, needed], cells, 1)) == [{"c": False}]
    with pytest.raises(InvalidArgument, match="column 'c' is missing"):
        pack([optional, nullable, needed], {"a": column_of([b"x"])}, 1)
    assert unpacked(pack([nullable], {"b": column_of([b""])}, 1)) == [{"b": None}]
    assert unpacked(pack([nullable], {}, 3)) == [{}, {}, {}]


def test_numbers_are_doubles() -> None:
    cells = {"n": column_of([b"0.1", b"-0", b"5e-324", b"9007199254740993"])}
    found = [row["n"] for row in unpacked(pack([Column("n", "number")], cells, 4))]
    assert found == [0.1, -0.0, 5e-324, 9007199254740992.0]
    assert math.copysign(1, found[1]) == -1
