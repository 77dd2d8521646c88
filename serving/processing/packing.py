"""Rows as serialized ``google.protobuf.Value`` structs. Pure.

Written here and not by protobuf's classes, since the keys are the same in each row and are
written once.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Tensor
from crossfade.serving.processing.table_schema import Column
from crossfade.serving.wire.fields import varint_bytes

# Tags of google.protobuf.Value and of what is in it.
_NULL: Final = b"\x08\x00"
_NUMBER: Final = struct.Struct("<cd")
_NUMBER_TAG: Final = b"\x11"
_STRING_TAG: Final = b"\x1a"
_TRUE, _FALSE = b"\x20\x01", b"\x20\x00"
_STRUCT_TAG: Final = b"\x2a"
_LIST_TAG: Final = b"\x32"
_ITEM_TAG: Final = b"\x0a"  # ListValue.values, Struct.fields, and the key of one of these
_VALUE_TAG: Final = b"\x12"
_BOOLEANS: Final = {b"true": _TRUE, b"false": _FALSE, b"1": _TRUE, b"0": _FALSE}
_SHOWN: Final = 64


class Packer:
    """Packs rows of a table. Thread-safe.

    Args:
        columns: those that a row may have.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._keys = {c.name: _framed(_ITEM_TAG, c.name.encode()) for c in columns}

    def pack(self, cells: Mapping[str, Tensor], rows: int) -> Tensor:
        """Packs rows.

        Args:
            cells: BYTES by column, [rows], of arrays [rows, items]; an empty cell has no value,
                empty cells at the end of a list are none of its items.
            rows: how many.

        Returns:
            BYTES [rows].

        Raises:
            InvalidArgument: a value is missing, or not of the column's type; the message says
                where.
        """
        entries: list[list[bytes]] = [[] for _ in range(rows)]
        for column in self._columns:
            found = cells.get(column.name)
            if found is None:
                if column.required and not column.nullable:
                    raise InvalidArgument(f"column '{escape(column.name)}' is missing")
                continue
            key = self._keys[column.name]
            for row, cell in enumerate(found.tolist()):
                value = _array(column, row, cell) if column.array else _scalar(column, row, cell)
                entries[row].append(_framed(_ITEM_TAG, key + _framed(_VALUE_TAG, value)))
        packed = np.empty(rows, np.object_)
        packed[:] = [_framed(_STRUCT_TAG, b"".join(each)) for each in entries]
        return packed


def _framed(tag: bytes, content: bytes) -> bytes:
    return b"".join((tag, varint_bytes(len(content)), content))


def _scalar(column: Column, row: int, cell: bytes) -> bytes:
    """The Value of a cell."""
    return _value(column, row, cell) if cell else _nothing(column, row)


def _array(column: Column, row: int, cells: Sequence[bytes]) -> bytes:
    size = len(cells)
    while size and not cells[size - 1]:
        size -= 1
    if not size:
        return _nothing(column, row)
    items = [_value(column, row, cell) if cell else _NULL for cell in cells[:size]]
    return _framed(_LIST_TAG, b"".join(_framed(_ITEM_TAG, item) for item in items))


def _nothing(column: Column, row: int) -> bytes:
    if not column.nullable:
        raise InvalidArgument(
            f"column '{escape(column.name)}' has no value in row {row}, and must have one"
        )
    return _NULL


def _value(column: Column, row: int, cell: bytes) -> bytes:
    if column.type == "string":
        if not cell.isascii() and not _is_text(cell):
            raise _refused(column, row, "is not UTF-8 text")
        return _framed(_STRING_TAG, cell)
    if column.type == "boolean":
        value = _BOOLEANS.get(cell.lower())
        if value is None:
            raise _refused(column, row, f"is no boolean: {_shown(cell)}")
        return value
    try:
        number = float(cell) if b"_" not in cell else math.nan  # Python's own way to write them
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _refused(column, row, f"is no number: {_shown(cell)}")
    if column.type == "integer" and not number.is_integer():
        raise _refused(column, row, f"is no whole number: {_shown(cell)}")
    return _NUMBER.pack(_NUMBER_TAG, number)


def _is_text(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(cell: bytes) -> str:
    return f"'{escape(cell[:_SHOWN].decode('utf-8', 'replace'))}'"


def _refused(column: Column, row: int, why: str) -> InvalidArgument:
    return InvalidArgument(f"column '{escape(column.name)}': the value in row {row} {why}")
