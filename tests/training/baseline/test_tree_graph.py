"""LightGBM's models as ONNX: rows on both sides of a threshold go the same way."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from crossfade.runtimes.core.errors import Internal
from crossfade.training.baseline import tree_graph

ROWS = 3000


def features(missing: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    # Values one unit in the last place apart: a threshold in float32 cannot lie between them.
    x[:, 0] = np.float32(1) + rng.integers(0, 8, ROWS).astype(np.float32) * np.float32(2**-23)
    x[:, 1] = rng.integers(-2, 3, ROWS)
    if missing:
        x[rng.random(x.shape) < 0.1] = np.nan
    return x


def answers(boosters: list[Any], rows: np.ndarray) -> np.ndarray:
    nodes = tree_graph.nodes([b.dump_model() for b in boosters], "x", "y")
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", rows.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 10
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": rows})[0]


@pytest.mark.parametrize("seen", [True, False], ids=["nan-in-training", "nan-unseen"])
@pytest.mark.parametrize("objective", ["regression", "binary", "multiclass"])
def test_the_same_answers(objective: str, seen: bool) -> None:
    x, asked = features(seen), features(True)
    score = (x[:, 0] - 1) * 2**23 + np.nan_to_num(x[:, 1])
    target = np.nan_to_num(score)
    parameters: dict[str, Any] = {"objective": objective, "verbose": -1, "num_threads": 1}
    if objective != "regression":
        target = np.digitize(target, [3, 5] if objective == "multiclass" else [3])
    if objective == "multiclass":
        parameters["num_class"] = 3
    boosters = [
        lightgbm.train({**parameters, "seed": s}, lightgbm.Dataset(x.astype(float), target), 20)
        for s in (0, 1)
    ]
    wanted = np.mean([b.predict(asked.astype(float), raw_score=True) for b in boosters], axis=0)
    found = answers(boosters, asked)
    np.testing.assert_allclose(found, wanted.reshape(ROWS, -1), rtol=1e-6, atol=1e-6)


def test_a_kind_of_split_that_is_not_written_is_an_error() -> None:
    node = {"decision_type": "==", "missing_type": "None", "threshold": "1||2"}
    dump = {
        "num_tree_per_iteration": 1,
        "tree_info": [{"tree_structure": {**node, "threshold": 1}}],
    }
    with pytest.raises(Internal, match="not written as a graph"):
        tree_graph.nodes([dump], "x", "y")
