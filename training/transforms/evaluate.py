"""What each transform computes, once for NumPy and the ONNX graph; and the NumPy side of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic

import numpy as np
import numpy.typing as npt

from crossfade.training.transforms import spec as specs
from crossfade.training.transforms import timestamps
from crossfade.training.transforms.operations import NumpyOperations, Operations, V
from crossfade.training.transforms.spec import Bucket, TransformSpec
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]
SEPARATOR: Final = "\x1f"
# Features are finite where they are not NaN: what float32 cannot hold becomes its largest number.
_LIMIT: Final = float(np.finfo(np.float32).max)


class Evaluation(Generic[V]):
    """Runs a specification in some operations.

    Args:
        spec: what to run.
        ops: with the specification's columns.
    """

    def __init__(self, spec: TransformSpec, ops: Operations[V]) -> None:
        self._ops = ops
        self._spec = spec
        self._kinds = {column.name: column.kind for column in spec.columns}
        self._texts: dict[str, V] = {}
        for made in spec.derived:
            if isinstance(made, Bucket):
                value = self._number(made.column)
                known = ops.finite(value)
                value = ops.where(known, value, ops.constant(0.0))
                bucket = ops.count_below(value, made.boundaries)
                self._texts[made.name] = ops.where(known, bucket, ops.constant(""))
            else:
                first, *others = [self.text(name) for name in made.columns]
                for other in others:
                    first = ops.concatenate(ops.concatenate(first, ops.constant(SEPARATOR)), other)
                self._texts[made.name] = first
            self._kinds[made.name] = "text"

    def dense(self) -> list[V]:
        """Float32 [rows] or [rows, width], of each dense transform."""
        return [value for t in self._spec.transforms if not t.ids for value in self._dense(t)]

    def ids(self) -> list[V]:
        """Int64 [rows], of each transform into embedding rows."""
        return [self._ids(t) for t in self._spec.transforms if t.ids]

    def text(self, column: str) -> V:
        """A text column, also a derived one."""
        return self._texts[column] if column in self._texts else self._ops.text(column)

    def _number(self, column: str) -> V:
        value = self._ops.number(column)
        return self._ops.where(self._ops.finite(value), value, self._ops.constant(math.nan))

    def _ids(self, transform: specs.Transform) -> V:
        ops, text = self._ops, self.text(transform.column)
        one = ops.constant(1)
        if isinstance(transform, specs.Embedding):
            return ops.binary("add", ops.place(text, transform.categories), one)
        assert isinstance(transform, specs.Hash)
        bucket = ops.binary(
            "mod", ops.hash32(text, transform.seed), ops.constant(transform.buckets)
        )
        empty = ops.compare("equal", text, ops.constant(""))
        return ops.where(empty, ops.constant(0), ops.binary("add", bucket, one))

    def _dense(self, transform: specs.Transform) -> Sequence[V]:
        """One definition each; numbers in float64 up to the last step."""
        ops = self._ops
        if isinstance(transform, specs.MissingFlag):
            return [self._as_float(ops.negate(self._known(transform.column)))]
        if isinstance(transform, specs.Timestamp):
            return self._timestamp(transform)
        if isinstance(transform, specs.OneHot):
            return self._one_hot(transform)
        if isinstance(transform, specs.Ordinal):
            place = self._ops.place(self.text(transform.column), transform.categories)
            known = ops.compare("greater", place, ops.constant(-1))
            number = ops.cast(place, "float64")
            return [self._rounded(ops.where(known, number, ops.constant(math.nan)))]
        if isinstance(transform, specs.TargetEncoding):
            table = np.array([transform.default, *transform.values], np.float64)
            place = ops.place(self.text(transform.column), transform.categories)
            row = ops.binary("add", place, ops.constant(1))
            columns = (np.ascontiguousarray(column) for column in table.T)
            return [self._rounded(ops.gather(ops.constant(c), row)) for c in columns]
        assert isinstance(transform, specs.Identity | specs.Standardize | specs.MinMax | specs.Log)
        return [self._rounded(self._scaled(transform))]

    def _scaled(
        self, transform: specs.Identity | specs.Standardize | specs.MinMax | specs.Log
    ) -> V:
        ops = self._ops
        value = self._number(transform.column)
        if transform.missing is not None:
            value = ops.where(ops.finite(value), value, ops.constant(transform.missing))
        if isinstance(transform, specs.Identity):
            return value
        if isinstance(transform, specs.Log):
            value = ops.binary("sub", value, ops.constant(transform.shift))
            value = ops.binary("max", value, ops.constant(0.0))
            value = ops.log(ops.binary("add", value, ops.constant(1.0)))
        low, span = (
            (transform.minimum, transform.maximum - transform.minimum)
            if isinstance(transform, specs.MinMax)
            else (transform.mean, transform.std)
        )
        value = ops.binary("sub", value, ops.constant(low))
        value = ops.binary("div", value, ops.constant(span))
        if isinstance(transform, specs.MinMax) and transform.clip:
            value = ops.binary("max", value, ops.constant(0.0))
            value = ops.binary("min", value, ops.constant(1.0))
        return value

    def _one_hot(self, transform: specs.OneHot) -> Sequence[V]:
        ops = self._ops
        place = ops.place(self.text(transform.column), transform.categories)
        depth = len(transform.categories)
        if transform.unknown == "feature":
            unknown = ops.compare("equal", place, ops.constant(-1))
            place = ops.where(unknown, ops.constant(depth), place)
            depth += 1
        return [ops.one_hot(place, depth)]

    def _timestamp(self, transform: specs.Timestamp) -> Sequence[V]:
        moments = self._moments(transform.column, transform.unit)
        found = []
        for part in transform.parts:
            makers: Sequence[Callable[[float], float] | None] = (
                (math.sin, math.cos) if transform.is_cyclic(part) else (None,)
            )
            for function in makers:
                value = moments.part(part) if function is None else moments.cycle(part, function)
                absent = math.nan if transform.missing is None else transform.missing
                value = self._ops.where(moments.known, value, self._ops.constant(absent))
                found.append(self._rounded(value))
        return found

    def _moments(self, column: str, unit: str) -> timestamps.Moments[V]:
        if self._kinds[column] == "number":
            return timestamps.of_numbers(self._ops, self._number(column), unit)
        return timestamps.of_texts(self._ops, self.text(column))

    def _known(self, column: str) -> V:
        if self._kinds[column] == "number":
            return self._ops.finite(self._number(column))
        if self._kinds[column] == "timestamp":
            return self._moments(column, "s").known
        empty = self._ops.compare("equal", self.text(column), self._ops.constant(""))
        return self._ops.negate(empty)

    def _as_float(self, truth: V) -> V:
        ops = self._ops
        return self._rounded(ops.where(truth, ops.constant(1.0), ops.constant(0.0)))

    def _rounded(self, value: V) -> V:
        ops = self._ops
        value = ops.binary("max", value, ops.constant(-_LIMIT))
        value = ops.binary("min", value, ops.constant(_LIMIT))
        return ops.cast(value, "float32")


def transform(spec: TransformSpec, table: Table) -> tuple[Array, Array]:
    """Runs a specification on a table.

    Returns:
        Features, float32 [rows, len(dense_names)], and embedding rows, int64 [rows, len(id_sizes)].

    Raises:
        WrongTable: a column is missing.
    """
    run, rows = _evaluation(spec, table), len(table)
    return _joined(run.dense(), rows, np.float32), _joined(run.ids(), rows, np.int64)


def texts(spec: TransformSpec, table: Table, column: str) -> Array:
    """A text column, also a derived one, object [rows]; raises as ``transform``."""
    return _evaluation(spec, table).text(column)


def _evaluation(spec: TransformSpec, table: Table) -> Evaluation[Array]:
    numbers = {c.name: table.numbers(c.name) for c in spec.columns if c.kind == "number"}
    words = {c.name: table.texts(c.name) for c in spec.columns if c.kind != "number"}
    return Evaluation(spec, NumpyOperations(numbers, words))


def _joined(values: Sequence[Array], rows: int, dtype: type) -> Array:
    if not values:
        return np.empty((rows, 0), dtype)
    return np.concatenate([v.reshape(rows, -1) for v in values], axis=1).astype(dtype, copy=False)
