"""A SavedModel's graph and variables, read from its files; nothing of it is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.reason import one_line
from crossfade.runtimes.savedmodel.library import tensorflow
from crossfade.training.weights.graph import Array, Graph, Input, Node, Stored, ordered
from crossfade.training.weights.savedmodel_flat import CALLS, Flat
from crossfade.training.weights.savedmodel_ops import translated

_HANDLES: Final = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_PASS: Final = frozenset({"Identity", "ReadVariableOp", "Snapshot", "StopGradient"})
_ASSIGNS: Final = frozenset({"AssignVariableOp", "Assign"})
_OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read(path: Path, signature: str = "", tags: Iterable[str] = ("serve",)) -> Graph:
    """Reads one signature.

    Args:
        path: the SavedModel's folder.
        signature: its name; "" is ``serving_default``, or the only one there is.
        tags: of the graph that is wanted.

    Raises:
        InvalidArgument: there is no such signature.
        LoadFailed: it is no SavedModel, or a damaged one.
        MissingExtra: TensorFlow is not installed.
    """
    meta = _meta_graph(path, set(tags))
    chosen = _signature(meta, signature)
    flat = Flat(meta.graph_def)
    outputs = {name: flat.tensor(info.name) for name, info in sorted(chosen.outputs.items())}
    inputs = {
        name: Input(flat.tensor(info.name), _dtype(info.dtype), _shape(info.tensor_shape))
        for name, info in sorted(chosen.inputs.items())
    }
    flat.inline(outputs.values())
    outputs = {name: flat.resolve(tensor) for name, tensor in outputs.items()}
    values, unread = _variables(path, meta, flat, outputs.values())
    return _graph(flat, inputs, outputs, values, unread)


def _meta_graph(path: Path, tags: set[str]) -> Any:
    tensorflow()
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        if (binary := path / "saved_model.pb").is_file():
            saved.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse((path / "saved_model.pbtxt").read_text(), saved)
    except FileNotFoundError:
        raise LoadFailed("not a SavedModel: no saved_model.pb") from None
    except (DecodeError, text_format.ParseError, UnicodeDecodeError):
        raise LoadFailed("not a SavedModel: saved_model.pb is corrupt") from None
    for meta in saved.meta_graphs:
        if tags <= set(meta.meta_info_def.tags):
            return meta
    raise LoadFailed(f"the SavedModel has no graph with the tags {', '.join(sorted(tags))}")


def _signature(meta: Any, name: str) -> Any:
    found = {k: v for k, v in meta.signature_def.items() if not k.startswith("__") and v.outputs}
    chosen = name or ("serving_default" if "serving_default" in found or len(found) != 1 else "")
    if not chosen:
        return next(iter(found.values()))
    if chosen not in found:
        there = ", ".join(sorted(found)) or "none"
        raise InvalidArgument(f"the model has no signature '{chosen}'; it has {there}")
    return found[chosen]


def _variables(
    path: Path, meta: Any, flat: Flat, outputs: Iterable[str]
) -> tuple[dict[str, tuple[str, Array]], dict[str, Stored]]:
    """Values and names of the variables that outputs read, by node; and those that none reads."""
    keys = _restored(flat, meta)
    twins = _twins(flat)
    reader = _checkpoint(path)
    shapes = reader.get_variable_to_shape_map() if reader is not None else {}
    read = [op.name for op in flat.needed(outputs) if op.op in _HANDLES]
    values: dict[str, tuple[str, Array]] = {}
    covered: set[str] = set()
    for name in read:
        same = twins.get(name, {name})
        found = sorted(key for each in same for key in keys.get(each, ()) if key in shapes)
        if not found and name in shapes:  # TensorFlow 1 names them alike
            found = [name]
        if not found:
            raise LoadFailed(f"the checkpoint has no value for the variable '{_shown(flat, name)}'")
        covered.update(found)
        values[name] = (_shown(flat, name), np.asarray(reader.get_tensor(found[0])))
    dtypes = reader.get_variable_to_dtype_map() if reader is not None else {}
    unread = {
        key: Stored(dtypes[key].name, tuple(shapes[key]))
        for key in sorted(shapes)
        if key not in covered and key != _OBJECT_GRAPH
    }
    return values, unread


def _shown(flat: Flat, name: str) -> str:
    shared = flat.ops[name].proto.attr["shared_name"].s.decode("utf-8", "replace")
    return shared or name


def _restored(flat: Flat, meta: Any) -> dict[str, set[str]]:
    """The checkpoint's keys that restoring assigns to each variable."""
    found: dict[str, set[str]] = {}
    restore = meta.saver_def.restore_op_name.partition(":")[0]
    call = flat.ops.get(restore)
    if call is not None and call.op in CALLS:
        flat.inline([f"{restore}:0"])
        flat.expand(call)
    for op in list(flat.ops.values()):
        if op.op not in _ASSIGNS or len(op.inputs) < 2:
            continue
        source = flat.resolve(op.inputs[1])
        name, _, index = source.rpartition(":")
        restored = flat.ops.get(name)
        if restored is None or restored.op != "RestoreV2":
            continue
        names = flat.ops[flat.resolve(restored.inputs[1]).rpartition(":")[0]]
        texts = _constant(names.proto).reshape(-1)
        variable = flat.resolve(op.inputs[0]).rpartition(":")[0]
        key = texts[int(index)]
        found.setdefault(variable, set()).add(key.decode() if isinstance(key, bytes) else str(key))
    return found


def _twins(flat: Flat) -> dict[str, set[str]]:
    """Variables that are one: Keras 3's, and the copies of them that a checkpoint fills."""
    groups: dict[str, set[str]] = {}
    for op in flat.top:
        if op.op not in _ASSIGNS or len(op.inputs) < 2:
            continue
        source = flat.ops.get(op.inputs[1].rpartition(":")[0])
        while source is not None and source.op in _PASS:
            source = flat.ops.get(source.inputs[0].rpartition(":")[0])
        if source is None or source.op not in _HANDLES:
            continue
        pair = {op.inputs[0].rpartition(":")[0], source.name}
        joined = set().union(pair, *(groups.get(name, set()) for name in pair))
        groups.update(dict.fromkeys(joined, joined))
    return groups


def _checkpoint(path: Path) -> Any:
    tf = tensorflow()
    prefix = path / "variables" / "variables"
    if not prefix.with_name("variables.index").is_file():
        return None
    try:
        return tf.train.load_checkpoint(str(prefix))
    except Exception as error:
        raise LoadFailed(
            f"the SavedModel's variables cannot be read: {one_line(error, path)}"
        ) from (error)


def _graph(
    flat: Flat,
    inputs: Mapping[str, Input],
    outputs: dict[str, str],
    values: Mapping[str, tuple[str, Array]],
    unread: dict[str, Stored],
) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    origins: dict[str, str] = {}
    given = {flat.resolve(entry.tensor) for entry in inputs.values()}
    for op in flat.needed(outputs.values()):
        tensor = f"{op.name}:0"
        if tensor in given:
            continue
        if op.op == "Const":
            constants[tensor] = _constant(op.proto)
            origins[tensor] = op.name
        elif op.op in _HANDLES:
            origins[tensor], constants[tensor] = values[op.name]
        else:
            nodes += translated(op.name, op.op, tuple(map(flat.resolve, op.inputs)), op.proto)
    return Graph(
        "savedmodel",
        tuple(ordered(nodes, outputs.values(), given)),
        {n: dataclasses.replace(i, tensor=flat.resolve(i.tensor)) for n, i in inputs.items()},
        outputs,
        constants,
        origins,
        unread,
    )


def _constant(node: Any) -> Array:
    from tensorflow.python.framework import tensor_util

    return np.asarray(tensor_util.MakeNdarray(node.attr["value"].tensor))


def _dtype(number: int) -> str:
    from tensorflow.python.framework import dtypes

    return str(dtypes.as_dtype(number).name)


def _shape(proto: Any) -> tuple[int, ...] | None:
    return None if proto.unknown_rank else tuple(int(dim.size) for dim in proto.dim)


def flat_definition(path: Path, signature: str = "") -> Any:
    """A ``GraphDef`` with the same tensors as ``read``'s graph and variables as constants.

    It is what parity is measured against: TensorFlow runs it, and can be asked for any tensor.
    Raises as ``read``.
    """
    tf = tensorflow()
    meta = _meta_graph(path, {"serve"})
    chosen = _signature(meta, signature)
    flat = Flat(meta.graph_def)
    outputs = [flat.tensor(info.name) for info in chosen.outputs.values()]
    flat.inline(outputs)
    values, _ = _variables(path, meta, flat, outputs)
    given = {flat.resolve(flat.tensor(info.name)) for info in chosen.inputs.values()}
    definition = tf.compat.v1.GraphDef(
        library=meta.graph_def.library, versions=meta.graph_def.versions
    )
    for op in flat.needed(outputs):
        inputs = list(map(flat.resolve, op.inputs))
        if op.op in _HANDLES:
            value = values[op.name][1]
            node = tf.compat.v1.NodeDef(name=op.name, op="Const")
            node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        else:
            node = tf.compat.v1.NodeDef()
            node.CopyFrom(op.proto)
            node.name = op.name
            node.attr.pop("_output_shapes", None)
            if f"{op.name}:0" in given and op.op != "Placeholder":
                inputs = []
            if op.op == "ReadVariableOp":
                node.op = "Identity"
                dtype = node.attr["dtype"].type
                node.attr.clear()
                node.attr["T"].type = dtype
            elif op.op == "ResourceGather":
                _as_gather(tf, definition, node, inputs)
        del node.input[:]
        node.input.extend(inputs)
        definition.node.append(node)
    return definition


def _as_gather(tf: Any, definition: Any, node: Any, inputs: list[str]) -> None:
    """Turns a gather from a variable into one from a tensor."""
    dtype, indices = node.attr["dtype"].type, node.attr["Tindices"].type
    axis = tf.compat.v1.NodeDef(name=f"{node.name}/crossfade_axis", op="Const")
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0))
    definition.node.append(axis)
    node.op = "GatherV2"
    node.attr.clear()
    node.attr["Tparams"].type, node.attr["Tindices"].type = dtype, indices
    node.attr["Taxis"].type = tf.int32.as_datatype_enum
    inputs.append(f"{axis.name}:0")
