"""A LightGBM model as ONNX nodes that answer alike: its thresholds stay float64.

Converters round thresholds to float32, which sends values that are close to one the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from crossfade.runtimes.core.errors import Internal

_LEAF: Final = "LEAF"
_BRANCH: Final = "BRANCH_LEQ"


class _Nodes:
    """The arrays of a TreeEnsembleRegressor, filled tree by tree."""

    def __init__(self) -> None:
        self.ints: dict[str, list[int]] = {
            name: []
            for name in (
                "nodes_treeids",
                "nodes_nodeids",
                "nodes_featureids",
                "nodes_truenodeids",
                "nodes_falsenodeids",
                "nodes_missing_value_tracks_true",
                "target_treeids",
                "target_nodeids",
                "target_ids",
            )
        }
        self.modes: list[str] = []
        self.thresholds: list[float] = []
        self.weights: list[float] = []

    def add(self, root: Mapping[str, Any], tree: int, target: int) -> None:
        """Adds a tree; without recursion, since trees may be deep."""
        pending, size = [(root, 0)], 1
        while pending:
            node, number = pending.pop()
            if "leaf_value" in node:
                self._node((tree, number), _LEAF)
                for name, value in (("treeids", tree), ("nodeids", number), ("ids", target)):
                    self.ints[f"target_{name}"].append(value)
                self.weights.append(node["leaf_value"])
                continue
            left, right, size = size, size + 1, size + 2
            threshold = float(node["threshold"])
            missing = int(_missing_goes_left(node, threshold))
            self._node(
                (tree, number), _BRANCH, (node["split_feature"], left, right, missing), threshold
            )
            pending += [(node["left_child"], left), (node["right_child"], right)]

    def _node(
        self,
        place: tuple[int, int],
        mode: str,
        branch: tuple[int, int, int, int] = (0, 0, 0, 0),
        threshold: float = 0.0,
    ) -> None:
        """Adds one at (tree, node); a branch is (feature, left, right, whether NaN goes left)."""
        names = ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
        for name, value in zip(
            (*names, "missing_value_tracks_true"), (*place, *branch), strict=True
        ):
            self.ints[f"nodes_{name}"].append(value)
        self.modes.append(mode)
        self.thresholds.append(threshold)


def _missing_goes_left(node: Mapping[str, Any], threshold: float) -> bool:
    """Where NaN goes: by the side learned, or as a zero where none was seen in training."""
    if node["decision_type"] != "<=" or node["missing_type"] not in ("NaN", "None"):
        raise Internal("the model has a kind of split that is not written as a graph")
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return threshold >= 0.0


def nodes(dumps: list[Mapping[str, Any]], features: str, scores: str) -> list[Any]:
    """Nodes that give the mean of several models' raw scores.

    Args:
        dumps: ``Booster.dump_model()`` of each; all with the same number of outputs.
        features: the tensor of features, float32 [rows, n].
        scores: what to call the output, float32 [rows, outputs], before any sigmoid or softmax.
    """
    made = _Nodes()
    outputs = dumps[0]["num_tree_per_iteration"]
    trees = 0
    for dump in dumps:
        for i, tree in enumerate(dump["tree_info"]):
            made.add(tree["tree_structure"], trees, i % outputs)
            trees += 1
    thresholds = np.array(made.thresholds, np.float64)
    weights = np.array(made.weights, np.float64) / len(dumps)
    wide = f"{scores} features"
    attributes: dict[str, Any] = dict(made.ints)
    return [
        helper.make_node("Cast", [features], [wide], to=TensorProto.DOUBLE),
        helper.make_node(
            "TreeEnsembleRegressor",
            [wide],
            [scores],
            domain="ai.onnx.ml",
            n_targets=outputs,
            aggregate_function="SUM",
            post_transform="NONE",
            nodes_modes=made.modes,
            nodes_values_as_tensor=numpy_helper.from_array(thresholds, "thresholds"),
            target_weights_as_tensor=numpy_helper.from_array(weights, "weights"),
            **attributes,
        ),
    ]
