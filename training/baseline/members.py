"""Models that a baseline is made of: each gives raw scores, and writes them as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crossfade.training.baseline import tree_graph
from crossfade.training.baseline.metrics import Task
from crossfade.training.transforms.evaluate import transform
from crossfade.training.transforms.spec import TransformSpec
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]


class Member(Protocol):
    """A trained model behind its features.

    Attributes:
        spec: makes the features.
        name: for reports.
    """

    spec: TransformSpec
    name: str

    def raw(self, features: Array) -> Array:
        """Scores before any link, float64 [rows, outputs], of float32 [rows, features]."""

    def nodes(self, features: str, scores: str) -> list[Any]:
        """ONNX nodes of ``raw``, float32."""


class Trees:
    """The mean of gradient-boosted trees, one model for each fold of a cross-validation."""

    name = "trees"

    def __init__(self, spec: TransformSpec, boosters: Sequence[Any]) -> None:
        self.spec = spec
        self._boosters = boosters

    def raw(self, features: Array) -> Array:
        """See ``Member``."""
        wide = features.astype(np.float64)
        found = [b.predict(wide, raw_score=True, num_threads=1) for b in self._boosters]
        return np.asarray(np.mean(found, axis=0)).reshape(len(features), -1)

    def nodes(self, features: str, scores: str) -> list[Any]:
        """See ``Member``."""
        return tree_graph.nodes([b.dump_model() for b in self._boosters], features, scores)


class Linear:
    """A linear model, which does not go beyond the features that it was fitted on."""

    name = "linear"

    def __init__(
        self, spec: TransformSpec, weights: Array, bias: Array, ends: tuple[Array, Array]
    ) -> None:
        """Makes one.

        Args:
            spec: makes the features.
            weights: float64 [features, outputs].
            bias: float64 [outputs].
            ends: the least and the largest value of each feature, float64 [features].
        """
        self.spec = spec
        self._ends = ends
        self._weights = weights
        self._bias = bias

    def raw(self, features: Array) -> Array:
        """See ``Member``."""
        inside = np.clip(features.astype(np.float64), *self._ends)
        return np.asarray(inside @ self._weights + self._bias)

    def nodes(self, features: str, scores: str) -> list[Any]:
        """See ``Member``."""
        from onnx import TensorProto, helper, numpy_helper

        def constant(value: Array, name: str) -> Any:
            tensor = numpy_helper.from_array(value, name)
            return helper.make_node("Constant", [], [name], value=tensor)

        names = ("x", "low", "high", "above", "inside", "w", "b", "wx", "y")
        wide, low, high, above, inside, weights, bias, product, total = (
            f"{scores} {name}" for name in names
        )
        return [
            constant(self._weights, weights),
            constant(self._bias, bias),
            constant(self._ends[0], low),
            constant(self._ends[1], high),
            helper.make_node("Cast", [features], [wide], to=TensorProto.DOUBLE),
            helper.make_node("Max", [wide, low], [above]),
            helper.make_node("Min", [above, high], [inside]),
            helper.make_node("MatMul", [inside, weights], [product]),
            helper.make_node("Add", [product, bias], [total]),
            helper.make_node("Cast", [total], [scores], to=TensorProto.FLOAT),
        ]


def linked(task: Task, raw: Array) -> Array:
    """Predictions of raw scores: values [rows, 1], or probabilities [rows, classes]."""
    if task == "regression":
        return raw
    if raw.shape[1] == 1:
        second = np.exp(-np.logaddexp(0, -raw))
        return np.concatenate([1 - second, second], axis=1)
    shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def predict(task: Task, members: Sequence[tuple[float, Member]], table: Table) -> Array:
    """The weighted mean of the members' predictions, as ``linked`` gives them."""
    total: Any = 0.0
    for weight, member in members:
        total = total + weight * linked(task, member.raw(transform(member.spec, table)[0]))
    return np.asarray(total)
