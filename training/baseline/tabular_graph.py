"""The graph of a tabular baseline: texts in, what AutoML answers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from crossfade.training.baseline.members import Member
from crossfade.training.baseline.metrics import Task
from crossfade.training.transforms import graph
from crossfade.training.transforms.spec import Column

VALUE: Final = "value"
CLASSES: Final = "classes"
SCORES: Final = "scores"


def compose(
    task: Task,
    members: Sequence[tuple[float, Member]],
    classes: Sequence[str],
    columns: Sequence[Column],
) -> Any:
    """Makes one graph of the members' transforms, the members, and their weighted mean.

    Args:
        task: what it answers.
        members: with their weights.
        classes: in the order of the scores.
        columns: the inputs: all that a member reads; others are taken and change nothing.

    Returns:
        An ONNX model that takes a text for each column, BYTES [rows], and gives ``value``, FP32
        [rows], or ``classes``, BYTES [rows, classes], and ``scores``, FP32 of the same shape.

    Raises:
        InvalidSpec: a column is called as an output.
    """
    onnx = graph.library()
    ops = graph.GraphOperations(onnx, "text")
    parts = []
    for place, (weight, member) in enumerate(members):
        features, raw = (f"{graph.INSIDE}{name} {place}" for name in ("dense", "raw"))
        graph.features(member.spec, ops, features, f"{graph.INSIDE}ids {place}")
        ops.nodes += member.nodes(features, raw)
        answer = _linked(ops, task, raw, len(classes))
        parts.append(ops.binary("mul", answer, ops.constant(np.array(weight, np.float32))))
    total = parts[0]
    for part in parts[1:]:
        total = ops.binary("add", total, part)
    helper, types = onnx.helper, onnx.TensorProto
    if task == "regression":
        axis = ops.constant(np.array([1], np.int64))
        ops.nodes.append(helper.make_node("Squeeze", [total, axis], [VALUE]))
        outputs = [helper.make_tensor_value_info(VALUE, types.FLOAT, [graph.ROWS])]
    else:
        words = f"{graph.INSIDE}words"
        ops.initializers.append(
            helper.make_tensor(
                words, types.STRING, [1, len(classes)], [c.encode() for c in classes]
            )
        )
        shape = f"{graph.INSIDE}shape"
        ops.nodes += [
            helper.make_node("Identity", [total], [SCORES]),
            helper.make_node("Shape", [total], [shape]),
            helper.make_node("Expand", [words, shape], [CLASSES]),
        ]
        wide = [graph.ROWS, len(classes)]
        outputs = [
            helper.make_tensor_value_info(CLASSES, types.STRING, wide),
            helper.make_tensor_value_info(SCORES, types.FLOAT, wide),
        ]
    return graph.model(ops, columns, outputs)


def _linked(ops: graph.GraphOperations, task: Task, raw: str, classes: int) -> str:
    """See ``members.linked``."""
    if task == "regression":
        return raw
    if classes > 2:
        return ops.node("Softmax", raw, axis=1)
    second = ops.node("Sigmoid", raw)
    first = ops.binary("sub", ops.constant(np.array(1, np.float32)), second)
    return ops.node("Concat", first, second, axis=1)
