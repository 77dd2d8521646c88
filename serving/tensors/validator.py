"""The one place where a request is checked, before any runtime sees a tensor of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import ITEMSIZE, NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import ModelMetadata, Tensor, TensorSpec
from crossfade.serving.tensors import cells, fit
from crossfade.serving.tensors.layout import Layout
from crossfade.serving.tensors.raw import RawTensor, decode_bytes

# Elements and bytes that one tensor may have; sizes are Python integers, so nothing wraps.
MAX_ELEMENTS: Final = 2**31 - 1
MAX_DIMENSIONS: Final = 32
# Layouts that are remembered; then all are forgotten.
_MAX_LAYOUTS: Final = 1024


class Validator:
    """Checks requests for one signature of one version. Thread-safe.

    Attributes:
        ends_in_one: see ``fit``.
    """

    def __init__(self, metadata: ModelMetadata, signature: str) -> None:
        self._model = metadata.name
        found = metadata.signatures[signature]
        self._plans = {spec.name: _plan(spec) for spec in found.inputs}
        others = [(spec.name, spec.alternative) for spec in found.inputs if spec.alternative]
        self._others = {spec.name: (name, _plan(spec)) for name, spec in others}
        self._required = frozenset(spec.name for spec in found.inputs if not spec.optional)
        self._outputs = frozenset(spec.name for spec in found.outputs)
        self._cells = frozenset(spec.name for spec in found.inputs if spec.cells)
        self.ends_in_one = fit.ends_in_one(found)
        self._max_rows = metadata.max_batch_size if found.batched else 0
        self._checked: dict[Layout, tuple[list[np.dtype[Any]], int]] = {}

    def inputs(
        self, raws: Sequence[RawTensor], layout: Layout | None = None
    ) -> tuple[dict[str, Tensor], int]:
        """Returns the arrays by name, and the rows of the batch (1 where there is no batch).

        The arrays are read-only views on the message where its alignment allows. Requests of one
        ``layout`` are checked once.

        Raises:
            InvalidArgument: with what was expected and what was got.
        """
        if layout is None or self._cells:
            return self._check(raws)
        checked = self._checked.get(layout)
        if checked is None:
            arrays, rows = self._check(raws)
            if len(self._checked) >= _MAX_LAYOUTS:
                self._checked.clear()
            self._checked[layout] = ([array.dtype for array in arrays.values()], rows)
            return arrays, rows
        dtypes, rows = checked
        return {raw.name: _array(raw, dtype) for raw, dtype in zip(raws, dtypes, strict=True)}, rows

    def _check(self, raws: Sequence[RawTensor]) -> tuple[dict[str, Tensor], int]:
        arrays: dict[str, Tensor] = {}
        replaced: set[str] = set()
        numbers: list[str] = []
        rows = 0
        for raw in raws:
            plan = self._plans.get(raw.name)
            other = self._others.get(raw.name) if self._others else None
            if other is not None and (plan is None or raw.dtype == other[1][0].dtype):
                instead_of, plan = other
                replaced.add(instead_of)
            if plan is None:
                raise self._unexpected(raw.name)
            if raw.name in arrays:
                raise InvalidArgument(f"input '{raw.name}' already exists in request")
            spec, dtype, itemsize = plan
            shape = raw.shape
            if spec.cells and raw.dtype in ITEMSIZE:
                dtype, itemsize = NUMPY[raw.dtype], ITEMSIZE[raw.dtype]
                numbers.append(raw.name)
            elif raw.dtype != spec.dtype:
                raise InvalidArgument(
                    f"inference input '{raw.name}' data-type is '{escape(raw.dtype)}', but model"
                    f" '{self._model}' expects '{spec.dtype}'"
                )
            count = self._count(raw.name, shape, spec)
            arrays[raw.name] = self._array(raw, count, dtype, itemsize)
            if self._max_rows:
                if rows not in (0, shape[0]):
                    raise InvalidArgument(
                        f"input '{raw.name}' batch size does not match other inputs for model"
                        f" '{self._model}': {shape[0]} and {rows}"
                    )
                rows = shape[0]
        if replaced:
            self._check_replaced(arrays, replaced)
        given = arrays.keys() | replaced if replaced else arrays.keys()
        if len(arrays) < len(self._plans) and (missing := self._required - given):
            raise InvalidArgument(
                f"expected {len(self._plans)} inputs but got {len(raws)} inputs for model"
                f" '{self._model}'. Got input(s) {sorted(arrays)}, but missing required input(s)"
                f" {sorted(missing)}. Please provide all required input(s)."
            )
        if rows > self._max_rows:
            raise InvalidArgument(
                f"inference request batch-size must be <= {self._max_rows} for '{self._model}'"
            )
        if numbers:
            arrays.update(cells.texts({name: arrays[name] for name in numbers}))
        return arrays, rows or 1

    def outputs(self, names: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the outputs wanted; none are all.

        Raises:
            InvalidArgument: one is unknown, or stands there twice.
        """
        for name in names:
            if name not in self._outputs:
                raise InvalidArgument(
                    f"unexpected inference output '{escape(name)}' for model '{self._model}'"
                )
        if len(set(names)) != len(names):
            raise InvalidArgument("an output was requested more than once")
        return tuple(names)

    def _array(self, raw: RawTensor, count: int, dtype: np.dtype[Any], itemsize: int) -> Tensor:
        data = raw.data
        if isinstance(data, np.ndarray):
            if data.size != count:
                raise self._mismatch(raw.name, count, data.size, "element")
            return data.reshape(raw.shape)
        if not itemsize:
            return decode_bytes(data, count, raw.name).reshape(raw.shape)
        if len(data) != count * itemsize:
            raise self._mismatch(raw.name, count * itemsize, len(data), "byte")
        return _array(raw, dtype)

    def _count(self, name: str, shape: tuple[int, ...], spec: TensorSpec) -> int:
        """Number of elements, once the shape is known to fit."""
        if shape and min(shape) <= 0:
            raise InvalidArgument(
                f"input '{name}' has a dimension of {min(shape)} in its shape {_list(shape)};"
                " every dimension must be positive"
            )
        # Dimensions first: the product of a million of them would take hours.
        if len(shape) > MAX_DIMENSIONS or (count := math.prod(shape)) > MAX_ELEMENTS:
            raise InvalidArgument(
                f"input '{name}' with shape {_list(shape)} exceeds the maximum allowed value of"
                f" {MAX_ELEMENTS} elements and {MAX_DIMENSIONS} dimensions"
            )
        wanted = spec.shape
        if wanted is not None and wanted != shape and not _fits(shape, wanted):
            raise InvalidArgument(
                f"unexpected shape for input '{name}' for model '{self._model}'."
                f" Expected {_list(wanted)}, got {_list(shape)}"
            )
        return count

    def _check_replaced(self, arrays: Mapping[str, Tensor], replaced: set[str]) -> None:
        for other, (name, _) in self._others.items():
            if name in replaced and name != other and name in arrays:
                raise InvalidArgument(f"the inputs '{name}' and '{other}' stand for one another")

    def _unexpected(self, name: str) -> InvalidArgument:
        if self._cells:
            return cells.unknown(name, self._cells)
        return InvalidArgument(
            f"unexpected inference input '{escape(name)}' for model '{self._model}'; it has"
            f" {sorted(self._plans)}"
        )

    def _mismatch(self, name: str, expected: int, got: int, unit: str) -> InvalidArgument:
        return InvalidArgument(
            f"input {unit} size mismatch for input '{name}' for model '{self._model}'."
            f" Expected {expected}, got {got}"
        )


def _plan(spec: TensorSpec) -> tuple[TensorSpec, np.dtype[Any], int]:
    return spec, NUMPY[spec.dtype], ITEMSIZE.get(spec.dtype, 0)


def _array(raw: RawTensor, dtype: np.dtype[Any]) -> Tensor:
    array: Tensor = np.ndarray(raw.shape, dtype, raw.data)
    return array if array.flags.aligned else array.copy()


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    if shape[1:] == wanted[1:]:  # the usual case: only the batch is free
        return wanted[0] in (-1, shape[0])
    return all(w in (s, -1) for w, s in zip(wanted, shape, strict=True))


def _list(shape: Sequence[int]) -> str:
    shown = ",".join(str(size) for size in shape[:MAX_DIMENSIONS])
    return f"[{shown}{',...' if len(shape) > MAX_DIMENSIONS else ''}]"
