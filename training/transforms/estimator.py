"""The transforms as a scikit-learn transformer, for pipelines and cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from crossfade.training.transforms import fitting, plan
from crossfade.training.transforms.evaluate import transform
from crossfade.training.transforms.fitting import Options
from crossfade.training.transforms.spec import TransformSpec
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]


class TableTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Features of a ``Table``, a data frame or a mapping of columns; ids come after the features.

    Args:
        kinds: the transformation of each column, see ``plan``; inferred without.
        options: how columns become features.
        spec: one that is fitted already; ``fit`` then only keeps it.

    Attributes:
        spec_: the fitted specification.
    """

    def __init__(
        self,
        kinds: Mapping[str, str] | None = None,
        options: Options | None = None,
        spec: TransformSpec | None = None,
    ) -> None:
        self.kinds = kinds
        self.options = options
        self.spec = spec

    def fit(self, X: Any, y: Any = None) -> TableTransformer:
        """Fits the specification; ``y`` are numbers or class names, for target encodings."""
        self._fit(X, y, out_of_fold=False)
        return self

    def fit_transform(self, X: Any, y: Any = None, **_: Any) -> Array:
        """Fits, and gives the features with target encodings out of fold."""
        found = self._fit(X, y, out_of_fold=True)
        return self.transform(X) if found is None else found

    def transform(self, X: Any) -> Array:
        """Float64 [rows, features + ids]; float64 holds each id and each float32."""
        check_is_fitted(self, "spec_")
        return _joined(*transform(self.spec_, as_table(X)))

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the features, then of the id columns."""
        check_is_fitted(self, "spec_")
        return np.array([*self.spec_.dense_names, *self.spec_.id_columns], object)

    def _fit(self, X: Any, y: Any, *, out_of_fold: bool) -> Array | None:
        if self.spec is not None:
            self.spec_ = self.spec
            return None
        table = as_table(X)
        columns = plan.of_kinds(self.kinds, table) if self.kinds else plan.infer(table)
        target = None if y is None else as_target(np.asarray(y))
        if target is None or not out_of_fold:
            self.spec_ = fitting.fit(table, columns, target, self.options)
            return None
        self.spec_, dense, ids = fitting.fit_transform(table, columns, target, self.options)
        return _joined(dense, ids)


def as_table(data: Any) -> Table:
    """A table of a mapping of columns or a data frame."""
    if isinstance(data, Table):
        return data
    return Table.of({str(name): data[name] for name in data})


def as_target(y: Array) -> Array:
    """What target encodings average: numbers as they are, class names one-hot but for the first."""
    if y.dtype.kind in "fiu":
        return y.astype(np.float64)
    classes = np.unique(y.astype(str))
    return np.asarray(y.astype(str)[:, None] == classes[1:], np.float64)


def _joined(dense: Array, ids: Array) -> Array:
    return np.asarray(np.concatenate([dense, ids], axis=1), np.float64)
