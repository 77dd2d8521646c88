"""Rows as serialized ``google.protobuf.Value`` structs, or as a text for each cell. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf import struct_pb2

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Tensor
from crossfade.serving.processing.table_schema import Column

_BOOLEANS: Final = {b"true": True, b"false": False, b"1": True, b"0": False}
_SHOWN: Final = 64


def pack(columns: Sequence[Column], cells: Mapping[str, Tensor], rows: int) -> Tensor:
    """Packs rows.

    Args:
        columns: those that a row may have.
        cells: BYTES by column, [rows], of arrays [rows, items]; an empty cell has no value, empty
            cells at the end of a list are none of its items.
        rows: how many.

    Returns:
        BYTES [rows].

    Raises:
        InvalidArgument: a value is missing, or not of the column's type; the message says where.
    """
    values = [struct_pb2.Value() for _ in range(rows)]
    structs = []
    for value in values:
        value.struct_value.SetInParent()  # a row without any value is a struct, too
        structs.append(value.struct_value.fields)
    for column in columns:
        found = cells.get(column.name)
        if found is None:
            _check_optional(column)
            continue
        fill = _fill_list if column.array else _fill
        for row, cell in enumerate(found.tolist()):
            fill(structs[row][column.name], column, row, cell)
    packed = np.empty(rows, np.object_)
    packed[:] = [value.SerializeToString() for value in values]
    return packed


def fill_up(columns: Sequence[Column], cells: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """All columns as texts, for a model that has an input for each; see ``pack``.

    Returns:
        BYTES [rows] by column, with an empty text where there is no value.
    """
    made: dict[str, Tensor] = {}
    for column in columns:
        found = cells.get(column.name)
        if found is None:
            _check_optional(column)
            found = np.full(rows, b"", np.object_)
        else:
            for row, cell in enumerate(found.tolist()):
                _fill(struct_pb2.Value(), column, row, cell)
        made[column.name] = found
    return made


def _check_optional(column: Column) -> None:
    if column.required and not column.nullable:
        raise InvalidArgument(f"column '{escape(column.name)}' is missing")


def _fill_list(value: Any, column: Column, row: int, cells: Sequence[bytes]) -> None:
    size = len(cells)
    while size and not cells[size - 1]:
        size -= 1
    if not size:
        _fill(value, column, row, b"")
        return
    for cell in cells[:size]:
        item = value.list_value.values.add()
        if cell:
            _fill(item, column, row, cell)
        else:
            item.null_value = struct_pb2.NULL_VALUE


def _fill(value: Any, column: Column, row: int, cell: bytes) -> None:
    """Makes a Value what a cell says."""
    if not cell:
        if not column.nullable:
            raise InvalidArgument(
                f"column '{escape(column.name)}' has no value in row {row}, and must have one"
            )
        value.null_value = struct_pb2.NULL_VALUE
    elif column.type == "string":
        try:
            value.string_value = cell.decode()
        except UnicodeDecodeError:
            raise _refused(column, row, "is not UTF-8 text") from None
    elif column.type == "boolean":
        truth = _BOOLEANS.get(cell.lower())
        if truth is None:
            raise _refused(column, row, f"is no boolean: {_shown(cell)}")
        value.bool_value = truth
    else:
        value.number_value = _number(column, row, cell)


def _number(column: Column, row: int, cell: bytes) -> float:
    try:
        number = float(cell) if b"_" not in cell else math.nan  # Python's own way to write them
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _refused(column, row, f"is no number: {_shown(cell)}")
    if column.type == "integer" and not number.is_integer():
        raise _refused(column, row, f"is no whole number: {_shown(cell)}")
    return number


def _shown(cell: bytes) -> str:
    return f"'{escape(cell[:_SHOWN].decode('utf-8', 'replace'))}'"


def _refused(column: Column, row: int, why: str) -> InvalidArgument:
    return InvalidArgument(f"column '{escape(column.name)}': the value in row {row} {why}")
