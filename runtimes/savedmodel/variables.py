"""Variables that a checkpoint does not fill, though the signatures read them.

Keras 3's variables, in a module of TensorFlow's that ``tf.saved_model.save`` writes, are there
twice: signatures read those that Keras made, and the checkpoint fills copies, which were made by
assigning the first ones to them. ``tf.saved_model.load`` sees from the objects that they belong
together; the graph has only these assignments to say so.
"""

from __future__ import annotations

from typing import Any


def complete(tf: Any, session: Any) -> None:
    """Gives each variable without a value that of the filled copy that was made of it, shared."""
    graph = session.graph
    with graph.as_default():
        handles = [op.outputs[0] for op in graph.get_operations() if op.type == "VarHandleOp"]
        checks = [tf.raw_ops.VarIsInitializedOp(resource=handle) for handle in handles]
        has_value = dict(zip([h.name for h in handles], session.run(checks), strict=True))
        assigns = []
        for handle in handles:
            copy = None if has_value[handle.name] else _copy_of(handle)
            if copy is None or not has_value.get(copy.name):
                continue
            value = tf.raw_ops.ReadVariableOp(resource=copy, dtype=handle.op.get_attr("dtype"))
            assigns.append(tf.raw_ops.AssignVariableOp(resource=handle, value=value))
        session.run(assigns)  # at once: a session takes a graph in anew whenever it has grown


def _copy_of(handle: Any) -> Any:
    """The variable that ``handle`` is assigned to in the graph, if any."""
    for read in handle.consumers():
        if read.type == "ReadVariableOp":
            for assign in read.outputs[0].consumers():
                if assign.type == "AssignVariableOp":
                    return assign.inputs[0]
    return None
