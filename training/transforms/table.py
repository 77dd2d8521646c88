"""A table: named columns of numbers or texts, read from CSV or made of Python values."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import NotFound, escape
from crossfade.training.transforms.errors import WrongTable

Array = npt.NDArray[Any]

# What a text has to be to be a number: exponents up to 250, so that no reader overflows. The graph
# uses the same expression; spaces around a number are not part of it.
_EXPONENT: Final = r"[eE][+-]?([0-9]{1,2}|1[0-9]{2}|2[0-4][0-9]|250)"
NUMBER: Final = rf"[+-]?([0-9]{{1,40}}(\.[0-9]{{0,40}})?|\.[0-9]{{1,40}})({_EXPONENT})?"
_NUMBER: Final = re.compile(NUMBER)
_MAX_BYTES: Final = 4 << 30
_MAX_FIELD_CHARACTERS: Final = 1 << 24
# Texts that files have for "no value", besides nothing at all.
MISSING: Final = frozenset({"NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?"})


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns of one length.

    Attributes:
        columns: by name: float64 [rows], NaN where there is no value, or object [rows] of ``str``,
            empty where there is none.
        name: for messages and reports.
    """

    columns: Mapping[str, Array]
    name: str = "a table"

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise WrongTable(f"the columns differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return next((len(column) for column in self.columns.values()), 0)

    def texts(self, name: str) -> Array:
        """A column as texts, object [rows]; of a number the shortest, 3 and not 3.0."""
        column = self._column(name)
        if column.dtype == object:
            return column
        return _objects(_written(value) for value in column.tolist())

    def numbers(self, name: str) -> Array:
        """A column as float64 [rows]; NaN where a text is no number."""
        column = self._column(name)
        return parse_numbers(column) if column.dtype == object else column

    def rows(self, index: Array) -> Table:
        """Some of the rows, by indices or a mask."""
        return Table({n: column[index] for n, column in self.columns.items()}, self.name)

    def without(self, *names: str) -> Table:
        """The table without some columns."""
        kept = {n: column for n, column in self.columns.items() if n not in names}
        return Table(kept, self.name)

    def _column(self, name: str) -> Array:
        column = self.columns.get(name)
        if column is None:
            raise WrongTable(
                f"the table has no column '{escape(name)}'; it has"
                f" {', '.join(escape(n) for n in list(self.columns)[:20])}"
            )
        return column

    @classmethod
    def of(cls, columns: Mapping[str, Iterable[Any]]) -> Table:
        """Makes a table of Python values: ``None`` and NaN are no value.

        A column of numbers alone becomes float64; in others, each value becomes its text.
        """
        made: dict[str, Array] = {}
        for name, column in columns.items():
            values = list(column)
            if all(v is None or _is_number(v) for v in values) and any(
                v is not None for v in values
            ):
                numbers = np.array([np.nan if v is None else float(v) for v in values], np.float64)
                made[name] = np.where(np.isfinite(numbers), numbers, np.nan)
            else:
                made[name] = _objects(_text(v) for v in values)
        return cls(made)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _written(number: float) -> str:
    if not math.isfinite(number):
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def _objects(values: Iterable[str]) -> Array:
    found = list(values)
    made = np.empty(len(found), np.object_)
    made[:] = found
    return made


def parse_numbers(texts: Array) -> Array:
    """Float64 of texts; NaN where one is not what ``NUMBER`` says."""
    match = _NUMBER.fullmatch
    return np.array([float(t) if match(t) else np.nan for t in texts.tolist()], np.float64)


def read_csv(path: str | Path, *, missing: frozenset[str] = MISSING) -> Table:
    """Reads a CSV file in UTF-8 with a header; all columns are texts, stripped of spaces.

    Raises:
        NotFound: there is no such file.
        WrongTable: it is no such file; the message says which line.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise WrongTable(f"{path.name} is a folder, and a table is one CSV file")
        if path.stat().st_size > _MAX_BYTES:
            raise WrongTable(f"{path.name} has more than {_MAX_BYTES >> 30} GiB")
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {path.name}") from None
    except OSError as error:
        raise WrongTable(f"{path.name} cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise WrongTable(f"{path.name}, line {line}: not UTF-8; save the file as UTF-8") from None
    return parse_csv(text, path.name, missing)


def parse_csv(text: str, name: str, missing: frozenset[str] = MISSING) -> Table:
    """See ``read_csv``; ``name`` is for messages."""
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Sequence[str]] = []
    header: list[str] = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header, name)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise WrongTable(
                    f"{name}, line {reader.line_num}: {len(row)} cells, and the header has"
                    f" {len(header)}"
                )
            rows.append(row)
    except csv.Error as error:
        raise WrongTable(f"{name}, line {reader.line_num}: {error}") from None
    if not rows:
        raise WrongTable(f"{name} has no rows")
    columns = {}
    for column, cells in zip(header, zip(*rows, strict=True), strict=True):
        stripped = (cell.strip() for cell in cells)
        columns[column] = _objects("" if cell in missing else cell for cell in stripped)
    return Table(columns, name)


def _check_header(header: Sequence[str], name: str) -> None:
    if not header or not any(header):
        raise WrongTable(f"{name} is empty: its first line has to name the columns")
    if "" in header:
        raise WrongTable(f"{name}: column {header.index('') + 1} has no name")
    twice = {column for column in header if header.count(column) > 1}
    if twice:
        raise WrongTable(f"{name}: two columns are called '{escape(min(twice))}'")
