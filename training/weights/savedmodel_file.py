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
from crossfade.training.weights.savedmodel_ops import translated

_CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_HANDLES: Final = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_PASS: Final = frozenset({"Identity", "ReadVariableOp", "Snapshot", "StopGradient"})
_ASSIGNS: Final = frozenset({"AssignVariableOp", "Assign"})
_OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MAX_CALL_DEPTH: Final = 64


@dataclasses.dataclass(slots=True)
class _Op:
    """A node of the flat graph; inputs and outputs are tensors ``node:index``."""

    name: str
    op: str
    inputs: tuple[str, ...]
    proto: Any


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
    flat = _Flat(meta.graph_def)
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


class _Flat:
    """The graph with functions put in the place of their calls."""

    def __init__(self, definition: Any) -> None:
        self.functions = {f.signature.name: f for f in definition.library.function}
        self.ops: dict[str, _Op] = {}
        self.alias: dict[str, str] = {}
        for node in definition.node:
            inputs = tuple(self.tensor(name) for name in node.input if not name.startswith("^"))
            self.ops[node.name] = _Op(node.name, node.op, inputs, node)
        self.top = tuple(self.ops.values())

    @staticmethod
    def tensor(name: str) -> str:
        """A tensor's name as it is spelled here: ``x`` is ``x:0``."""
        return name if ":" in name else f"{name}:0"

    def resolve(self, tensor: str) -> str:
        """What a tensor is, once calls and identities are looked through."""
        while True:
            if (was := self.alias.get(tensor)) is not None:
                tensor = was
                continue
            op = self.ops.get(tensor.rpartition(":")[0])
            if op is None or op.op not in {"Identity", "IdentityN", "Snapshot", "StopGradient"}:
                return tensor
            tensor = op.inputs[int(tensor.rpartition(":")[2])]

    def inline(self, tensors: Iterable[str]) -> None:
        """Inlines all calls that tensors need.

        Raises:
            LoadFailed: functions call each other without end.
        """
        waiting = [(tensor, 0) for tensor in tensors]
        seen: set[str] = set()
        while waiting:
            tensor, depth = waiting.pop()
            name = tensor.rpartition(":")[0]
            op = self.ops.get(name)
            if tensor in self.alias:
                waiting.append((self.alias[tensor], depth))
                continue
            if op is None or name in seen:
                continue
            seen.add(name)
            if op.op in _CALLS or op.op in self.functions:
                if depth >= _MAX_CALL_DEPTH:
                    raise LoadFailed("the SavedModel's functions call each other without end")
                self._expand(op)
                seen.discard(name)
                if tensor in self.alias:
                    waiting.append((self.alias[tensor], depth + 1))
            else:
                waiting += [(each, depth) for each in op.inputs]

    def _expand(self, call: _Op) -> None:
        name = call.proto.attr["f"].func.name if call.op in _CALLS else call.op
        function = self.functions.get(name)
        if function is None:
            raise LoadFailed("the SavedModel calls a function that it does not have")
        given = {
            arg.name: tensor
            for arg, tensor in zip(function.signature.input_arg, call.inputs, strict=True)
        }
        inside = {node.name: node for node in function.node_def}

        def outer(reference: str) -> str:
            node, _, rest = reference.partition(":")
            if node in given and node not in inside:
                return given[node]
            return f"{call.name}/{node}:{self._index(inside[node], rest)}"

        for node in function.node_def:
            inputs = tuple(outer(each) for each in node.input if not each.startswith("^"))
            self.ops[f"{call.name}/{node.name}"] = _Op(
                f"{call.name}/{node.name}", node.op, inputs, node
            )
        for index, arg in enumerate(function.signature.output_arg):
            self.alias[f"{call.name}:{index}"] = outer(function.ret[arg.name])

    def _index(self, node: Any, rest: str) -> int:
        """The number of an output that a function spells ``argument:index``."""
        from tensorflow.python.framework import op_def_registry

        argument, _, index = rest.partition(":")
        if node.op in _CALLS or node.op in self.functions:
            if node.op in _CALLS:
                return int(index)
            names = [arg.name for arg in self.functions[node.op].signature.output_arg]
            return names.index(argument)
        definition = op_def_registry.get(node.op)
        before = 0
        for arg in definition.output_arg if definition is not None else ():
            if arg.name == argument:
                break
            before += node.attr[arg.number_attr].i if arg.number_attr else 1
        return before + int(index or 0)


def _variables(
    path: Path, meta: Any, flat: _Flat, outputs: Iterable[str]
) -> tuple[dict[str, tuple[str, Array]], dict[str, Stored]]:
    """Values and names of the variables that outputs read, by node; and those that none reads."""
    keys = _restored(flat, meta)
    twins = _twins(flat)
    reader = _checkpoint(path)
    shapes = reader.get_variable_to_shape_map() if reader is not None else {}
    read = [op.name for op in _needed(flat, outputs) if op.op in _HANDLES]
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


def _needed(flat: _Flat, outputs: Iterable[str]) -> list[_Op]:
    waiting, seen = [flat.resolve(tensor) for tensor in outputs], {}
    while waiting:
        name = waiting.pop().rpartition(":")[0]
        if name not in seen and name in flat.ops:
            seen[name] = flat.ops[name]
            waiting += [flat.resolve(tensor) for tensor in flat.ops[name].inputs]
    return list(seen.values())


def _shown(flat: _Flat, name: str) -> str:
    shared = flat.ops[name].proto.attr["shared_name"].s.decode("utf-8", "replace")
    return shared or name


def _restored(flat: _Flat, meta: Any) -> dict[str, set[str]]:
    """The checkpoint's keys that restoring assigns to each variable."""
    found: dict[str, set[str]] = {}
    restore = meta.saver_def.restore_op_name.partition(":")[0]
    call = flat.ops.get(restore)
    if call is not None and call.op in _CALLS:
        flat.inline([f"{restore}:0"])
        flat._expand(call)
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


def _twins(flat: _Flat) -> dict[str, set[str]]:
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
    flat: _Flat,
    inputs: Mapping[str, Input],
    outputs: dict[str, str],
    values: Mapping[str, tuple[str, Array]],
    unread: dict[str, Stored],
) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    origins: dict[str, str] = {}
    given = {flat.resolve(entry.tensor) for entry in inputs.values()}
    for op in _needed(flat, outputs.values()):
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
    flat = _Flat(meta.graph_def)
    outputs = [flat.tensor(info.name) for info in chosen.outputs.values()]
    flat.inline(outputs)
    values, _ = _variables(path, meta, flat, outputs)
    given = {flat.resolve(flat.tensor(info.name)) for info in chosen.inputs.values()}
    definition = tf.compat.v1.GraphDef(
        library=meta.graph_def.library, versions=meta.graph_def.versions
    )
    for op in _needed(flat, outputs):
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
