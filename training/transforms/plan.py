"""What a column is to become: read from an export or a training job's definition, or inferred.

AutoML's names of transformations: ``auto``, ``numeric``, ``categorical``, ``timestamp``. Others
(``text``, ``repeated_numeric`` …) have no counterpart here and are refused, never left out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from crossfade.runtimes.core.errors import NotFound, escape
from crossfade.training.transforms.errors import InvalidSpec, UnknownTransform, WrongTable
from crossfade.training.transforms.spec import Kind
from crossfade.training.transforms.table import NUMBER, Table
from crossfade.training.transforms.timestamps import ISO_8601

Transformation = Literal["auto", "numeric", "categorical", "timestamp"]
TRANSFORMATIONS: Final = ("auto", "numeric", "categorical", "timestamp")
_KINDS: Final[Mapping[str, Kind]] = {
    "numeric": "number",
    "categorical": "text",
    "timestamp": "timestamp",
}
_VOCABULARY: Final = re.compile(r"(.+)_vocab(\.txt)?")
_MAX_BYTES: Final = 64 << 20
# So many different whole numbers are still taken for the names of categories.
_FEW: Final = 12


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedColumn:
    """A column and what is known of it before any data are seen.

    Attributes:
        kind: what it holds.
        categories: of a text column, its categories where an export has them.
        source: where this is known from, for reports.
    """

    name: str
    kind: Kind
    categories: Sequence[str] = ()
    source: str = "the data"


def infer(table: Table, *, target: str | None = None) -> list[PlannedColumn]:
    """Takes each column for what its values are.

    Numbers, unless they are a few whole ones; timestamps; else texts. A column is numbers or
    timestamps if all of its values are.
    """
    planned = []
    for name in table.columns:
        if name != target:
            planned.append(PlannedColumn(name, infer_kind(table, name)))
    return planned


def infer_kind(table: Table, name: str) -> Kind:
    """The kind of a column, see ``infer``."""
    values = set(table.texts(name).tolist()) - {""}
    if table.columns[name].dtype == object:
        if values and all(re.fullmatch(ISO_8601, value) for value in values):
            return "timestamp"
        if not values or not all(re.fullmatch(NUMBER, value) for value in values):
            return "text"
    whole = all(re.fullmatch(r"-?[0-9]{1,9}", value) for value in values)
    return "text" if whole and len(values) <= _FEW else "number"


def of_transformations(
    transformations: Sequence[Mapping[str, Any]], table: Table
) -> list[PlannedColumn]:
    """Reads the ``transformations`` of an AutoML Tabular training job.

    Each is ``{"numeric": {"column_name": "Age"}}``, with ``columnName`` in JSON of the API.

    Raises:
        UnknownTransform: a transformation that does not exist here.
        InvalidSpec: it is written in another way, or names a column twice.
        WrongTable: the table has no such column.
    """
    planned: dict[str, PlannedColumn] = {}
    for each in transformations:
        if not isinstance(each, Mapping) or len(each) != 1:
            raise InvalidSpec("a transformation is an object with one key, its kind")
        ((kind, details),) = each.items()
        if kind not in TRANSFORMATIONS:
            raise unknown(str(kind))
        name = None
        if isinstance(details, Mapping):
            name = details.get("column_name", details.get("columnName"))
            extra = set(details) - {"column_name", "columnName"}
            if extra:
                raise InvalidSpec(
                    f"transformation '{kind}': '{escape(str(min(extra)))}' is unknown"
                )
        if not isinstance(name, str):
            raise InvalidSpec(f"transformation '{kind}' names no column")
        if name in planned:
            raise InvalidSpec(f"column '{escape(name)}' has two transformations")
        planned[name] = _planned(table, name, kind, "the training job")
    return list(planned.values())


def of_kinds(kinds: Mapping[str, str], table: Table) -> list[PlannedColumn]:
    """``{"Age": "numeric"}``: the same as ``of_transformations``, by column."""
    return of_transformations(
        [{kind: {"column_name": name}} for name, kind in kinds.items()], table
    )


def of_export(folder: Path, columns: Mapping[str, str | None], table: Table) -> list[PlannedColumn]:
    """Reads what an AutoML Tabular export says of its columns.

    A column with a vocabulary among the graph's assets is categorical, with those categories. An
    export keeps the rest of its transformations in files that no documentation describes, so that
    other columns are taken for what their values in the table are.

    Args:
        folder: of the export, or of an imported version: ``assets`` is looked for below it.
        columns: those that ``instance.yaml`` declares, with their type.
        table: the training data.

    Raises:
        UnknownTransform: a column is declared as an array or another type without a counterpart.
        WrongTable: the table has not all of the columns.
        NotFound: the folder does not exist.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no folder {folder.name}")
    found = {}
    for path in sorted(folder.rglob("assets/*")):
        match = _VOCABULARY.fullmatch(path.name)
        if match and path.is_file():
            found[match[1]] = _words(path)
    planned = []
    for name, kind in columns.items():
        if kind not in ("string", "number", "integer", "boolean", None):
            raise unknown(f"{kind}, of column '{escape(name)}'")
        words = found.get(name, found.get(_asset_name(name)))
        if words is None:
            known = "numeric" if kind in ("number", "integer") else "auto"
            planned.append(_planned(table, name, known, "instance.yaml and the data"))
        else:
            _check_column(table, name)
            planned.append(PlannedColumn(name, "text", words, f"{name}_vocab"))
    return planned


def unknown(kind: str) -> UnknownTransform:
    """The error for a transformation that does not exist here."""
    return UnknownTransform(
        f"there is no transformation '{escape(kind)}' here; there are"
        f" {', '.join(TRANSFORMATIONS)}; leave the column out, or make one of these of it"
    )


def _planned(table: Table, name: str, transformation: str, source: str) -> PlannedColumn:
    _check_column(table, name)
    if transformation == "auto":
        return PlannedColumn(name, infer_kind(table, name), (), source)
    return PlannedColumn(name, _KINDS[transformation], (), source)


def _check_column(table: Table, name: str) -> None:
    if name not in table.columns:
        raise WrongTable(f"the table has no column '{escape(name)}'")


def _asset_name(column: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", column)


def _words(path: Path) -> list[str]:
    """The words of a vocabulary, one a line, each once."""
    if path.stat().st_size > _MAX_BYTES:
        raise InvalidSpec(f"{path.name} has more than {_MAX_BYTES >> 20} MiB")
    try:
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError:
        raise InvalidSpec(f"{path.name} is not UTF-8") from None
    return list(dict.fromkeys(line for line in lines if line))
