"""Rows of columns in, the declared answer out: what ``table`` of ``model.yaml`` asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import Signature, Tensor, Tensors, TensorSpec
from crossfade.serving.config.table_config import Table
from crossfade.serving.processing import table_schema
from crossfade.serving.processing.framing import Frame
from crossfade.serving.processing.packing import fill_up, pack
from crossfade.serving.processing.table_schema import Column, Field

_VALUE: Final = "value"
_T = TypeVar("_T", Column, Field)


class TableInput:
    """Makes the input of packed rows of columns. Thread-safe.

    Attributes:
        spec: the model's input; a request may have it instead of columns, unless one of these is
            called so.
    """

    def __init__(self, spec: TensorSpec, declared: Sequence[Column]) -> None:
        self.spec = spec
        self._columns = tuple(declared)
        self._names = frozenset(column.name for column in declared)

    def seen(self, signature: Signature) -> Signature:
        """The signature with a column for each input that clients may send in place of ``spec``."""
        inputs: list[TensorSpec] = []
        for spec in signature.inputs:
            if spec.name != self.spec.name:
                inputs.append(spec)
                continue
            rows = (spec.shape or (-1,))[:1]
            inputs += [
                TensorSpec(c.name, "BYTES", (*rows, -1) if c.array else rows, True, cells=True)
                for c in self._columns
            ]
            if spec.name not in self._names:
                inputs.append(dataclasses.replace(spec, optional=True))
        return dataclasses.replace(signature, inputs=tuple(inputs))

    def read(self, inputs: Tensors, rows: int) -> dict[str, Tensor]:
        """The model's inputs of a request's.

        Args:
            inputs: columns, or the packed rows, and the model's other inputs.
            rows: how many rows a request without any column has.

        Raises:
            InvalidArgument: it has both, or a value that its column does not take.
        """
        given = {name: array for name, array in inputs.items() if name in self._names}
        others = {name: array for name, array in inputs.items() if name not in self._names}
        if self.spec.name in others:
            if given:
                raise InvalidArgument(
                    f"'{self.spec.name}' holds whole rows: give it or columns, and not both"
                )
            return others
        rows = len(next(iter(given.values()))) if given else rows
        return {**others, self.spec.name: pack(self._columns, given, rows)}


class ColumnInputs:
    """Makes each column that a request leaves out an input of empty texts. Thread-safe.

    For a model that has an input of texts for each column, and so takes rows as they come.
    """

    def __init__(self, declared: Sequence[Column]) -> None:
        self._columns = {column.name: column for column in declared}

    def seen(self, signature: Signature) -> Signature:
        """The signature with these inputs as columns."""
        inputs = [
            dataclasses.replace(spec, optional=True, cells=True)
            if spec.name in self._columns
            else spec
            for spec in signature.inputs
        ]
        return dataclasses.replace(signature, inputs=tuple(inputs))

    def read(self, inputs: Tensors, rows: int) -> dict[str, Tensor]:
        """See ``TableInput.read``."""
        given = {name: array for name, array in inputs.items() if name in self._columns}
        rows = len(next(iter(given.values()))) if given else rows
        return {**inputs, **fill_up(list(self._columns.values()), given, rows)}


class Prediction:
    """See ``Answer``. Gives the declared fields, a value for each row or a list of them.

    The model's output of a field has its name; if it is called otherwise, its only output of
    numbers is ``value``. Where classes are declared, they are answered in the declared order.
    """

    def __init__(self, declared: Sequence[Field], outputs: Sequence[TensorSpec]) -> None:
        by_name = {spec.name: spec for spec in outputs}
        numeric = [spec for spec in outputs if spec.dtype != "BYTES"]
        self._sources: dict[str, tuple[Field, str]] = {}
        specs = []
        for field in declared:
            source = by_name.get(field.name)
            if source is None and field.name == _VALUE and len(numeric) == 1:
                source = numeric[0]
            if source is None:
                continue
            shape = source.shape
            if shape is not None:
                shape = shape if field.array else shape[:1]
            self._sources[field.name] = (field, source.name)
            specs.append(TensorSpec(field.name, source.dtype, shape))
        if not specs:
            raise LoadFailed(
                f"table.prediction: it declares {sorted(f.name for f in declared)}, and the model"
                f" gives {sorted(by_name)}"
            )
        self.outputs = tuple(specs)
        self.needs = tuple(source for _, source in self._sources.values())
        named = [field for field, _ in self._sources.values() if field.classes]
        self._classes = named[0] if len(named) == 1 else None
        self.labels: Mapping[str, Sequence[str]] = {}
        if self._classes is not None:
            scores = [s.name for s in specs if s.dtype != "BYTES" and self._is_array(s.name)]
            self.labels = dict.fromkeys(scores, tuple(self._classes.classes))
            self._order = [name.encode() for name in self._classes.classes]

    def make(self, found: Tensors, _: Sequence[Frame] | None) -> dict[str, Tensor]:
        """See ``Answer``.

        Raises:
            FailedPrecondition: the model's answer is not what is declared.
        """
        made = {}
        for name, (field, source) in self._sources.items():
            array = found[source]
            made[name] = array if field.array else _flat(name, array)
        return made if self._classes is None else self._ordered(made, self._classes.name)

    def _is_array(self, name: str) -> bool:
        return self._sources[name][0].array

    def _ordered(self, made: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        rows = made[name].tolist()
        if all(row == self._order for row in rows):
            return made
        wanted = sorted(self._order)
        if not all(isinstance(row, list) and sorted(row) == wanted for row in rows):
            raise FailedPrecondition(
                "the model answers with other classes than those declared for it; remove"
                " table.prediction, or correct the file"
            )
        places = np.array([[row.index(each) for each in self._order] for row in rows])
        return {
            n: np.take_along_axis(array, places, axis=1)
            if self._is_array(n) and array.shape == places.shape
            else array
            for n, array in made.items()
        }


def table_input(
    config: Table, inputs: Sequence[TensorSpec], folder: Path
) -> TableInput | ColumnInputs:
    """What ``table`` makes of the model's inputs: packed rows, or a text for each column.

    Raises:
        LoadFailed: the file, the configuration and the model contradict each other.
    """
    declared = _declared(table_schema.columns, folder, config.instance, "instance")
    texts = [spec for spec in inputs if spec.dtype == "BYTES" and len(spec.shape or ()) == 1]
    of_columns = {column.name for column in declared if not column.array}
    all_alone = len(of_columns) == len(declared) and of_columns <= {spec.name for spec in texts}
    if config.input is None and all_alone:
        return ColumnInputs(declared)
    named = texts if config.input is None else [s for s in texts if s.name == config.input]
    if len(named) != 1:
        raise LoadFailed(
            "table.input: rows are packed into one input of strings, one a row, unless the model"
            f" has one for each column; it has {[spec.name for spec in texts]} of that kind"
        )
    others = {spec.name for spec in inputs if spec is not named[0]}
    taken = others & {column.name for column in declared}
    if taken:
        raise LoadFailed(f"table: '{min(taken)}' is a column and an input of the model")
    return TableInput(named[0], declared)


def prediction(config: Table, outputs: Sequence[TensorSpec], folder: Path) -> Prediction | None:
    """What ``table`` makes of the model's outputs; raises as ``table_input``."""
    if config.prediction is None:
        return None
    declared = _declared(table_schema.fields, folder, config.prediction, "prediction")
    return Prediction(declared, outputs)


def _declared(read: Callable[[Path], list[_T]], folder: Path, file: str, key: str) -> list[_T]:
    try:
        found = read(folder / file)
    except InvalidArgument as error:
        raise LoadFailed(f"table.{key}: {error.message}") from None
    if not found:
        raise LoadFailed(f"table.{key}: the version's folder has no '{file}' that declares any")
    return found


def _flat(name: str, array: Tensor) -> Tensor:
    """[rows] of [rows] or [rows, 1]."""
    if array.ndim == 1:
        return array
    if array.size != len(array):
        raise FailedPrecondition(
            f"the model gives several values for '{name}', which is declared as one; remove"
            " table.prediction, or correct the file"
        )
    return array.reshape(len(array))
