"""One signature of a SavedModel as a graph of constants: frozen, inlined, cut, and written again.

All converters of SavedModels start here. Variables become constants (a converter that meets them
can write a file that answers NaN), functions are inlined so that every operation is seen, and the
signature's own names are those of the tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossfade.runtimes.core.dtypes import name_of
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import TensorSpec
from crossfade.runtimes.reason import one_line
from crossfade.runtimes.savedmodel.library import tensorflow
from crossfade.serving.conversion.cut import Node, tensor_name


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """A graph without variables or calls.

    Attributes:
        graph: a ``tf.Graph``.
        inputs, outputs: tensors of the graph by the signature's names.
    """

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def nodes(self) -> dict[str, Node]:
        """The graph as ``cut`` reads it; functions that are left are those of loops and branches.

        A node's operations are its own and, for a loop or a branch, those of its functions.
        """
        definition = self.graph.as_graph_def()
        functions = {f.signature.name: f.node_def for f in definition.library.function}
        return {
            node.name: Node(
                frozenset(_operations(node, functions, set())),
                tuple(tensor_name(name) for name in node.input if not name.startswith("^")),
            )
            for node in definition.node
        }

    def spec(self, name: str, tensor: str) -> TensorSpec:
        """Describes a tensor of the graph.

        Raises:
            InvalidArgument: its type is none that a client could send.
        """
        found = self.graph.get_tensor_by_name(tensor)
        try:
            is_text = found.dtype.name == "string"
            dtype = "BYTES" if is_text else name_of(np.dtype(found.dtype.as_numpy_dtype))
        except (KeyError, TypeError):
            raise InvalidArgument(f"tensor '{name}' is {found.dtype.name}") from None
        rank = found.shape.rank
        dims = None if rank is None else tuple(-1 if d is None else d for d in found.shape)
        return TensorSpec(name, dtype, dims)


def _operations(node: Any, functions: Mapping[str, Any], seen: set[str]) -> list[str]:
    found = [node.op]
    for value in node.attr.values():
        names = [value.func.name] if value.HasField("func") else [f.name for f in value.list.func]
        for name in names:
            if name in functions and name not in seen:
                seen.add(name)
                for inner in functions[name]:
                    found += _operations(inner, functions, seen)
    return found


def unknown_operations(path: Path) -> list[str]:
    """Operations of a SavedModel's file that this TensorFlow does not have, sorted.

    Read off the file: a graph with such an operation cannot even be loaded.

    Raises:
        LoadFailed: the file is no SavedModel.
    """
    tensorflow()
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    saved = saved_model_pb2.SavedModel()
    binary = path / "saved_model.pb"
    try:
        if binary.is_file():
            saved.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse((path / "saved_model.pbtxt").read_text(), saved)
    except FileNotFoundError:
        raise LoadFailed("not a SavedModel: no saved_model.pb") from None
    except (DecodeError, text_format.ParseError, UnicodeDecodeError):
        raise LoadFailed("not a SavedModel: saved_model.pb is corrupt") from None
    used = set()
    for meta_graph in saved.meta_graphs:
        definition = meta_graph.graph_def
        used |= {node.op for node in definition.node}
        own = {function.signature.name for function in definition.library.function}
        used |= {node.op for function in definition.library.function for node in function.node_def}
        used -= own
    return sorted(op for op in used if op_def_registry.get(op) is None)


def freeze(path: Path, signature: str, tags: list[str]) -> Frozen:
    """Loads one signature with its variables as constants.

    Raises:
        InvalidArgument: there is no such signature.
        LoadFailed: TensorFlow cannot load or freeze it.
    """
    tf = tensorflow()
    try:
        return _freeze_functions(tf, path, signature, tags)
    except InvalidArgument:
        raise
    except Exception as first:
        # TensorFlow 1's variables, and inputs whose names Python cannot have.
        try:
            return _freeze_session(tf, path, signature, tags)
        except InvalidArgument:
            raise
        except Exception:
            raise LoadFailed(
                f"TensorFlow cannot freeze the model: {one_line(first, path)}"
            ) from first


def _freeze_functions(tf: Any, path: Path, signature: str, tags: list[str]) -> Frozen:
    loaded = tf.saved_model.load(str(path), tags=tags)
    if signature not in loaded.signatures:
        raise _no_signature(signature, loaded.signatures)
    function = loaded.signatures[signature]
    specs = dict(sorted(function.structured_input_signature[1].items()))
    outputs = sorted(function.structured_outputs)

    @tf.function  # type: ignore[untyped-decorator]
    def ordered(*tensors: Any) -> Any:
        answers = function(**dict(zip(specs, tensors, strict=True)))
        return [answers[name] for name in outputs]

    concrete = ordered.get_concrete_function(*specs.values())
    return _inlined(concrete, list(specs), outputs)


def _freeze_session(tf: Any, path: Path, signature: str, tags: list[str]) -> Frozen:
    from tensorflow.python.framework import convert_to_constants

    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session, graph.as_default():
        found = tf.compat.v1.saved_model.loader.load(session, tags, str(path)).signature_def
        if signature not in found:
            raise _no_signature(signature, found)
        inputs = {n: info.name for n, info in sorted(found[signature].inputs.items())}
        outputs = {n: info.name for n, info in sorted(found[signature].outputs.items())}
        definition = graph.as_graph_def()
        # What is fed may be computed from something else (an Example): that part is not wanted.
        fed = {name: graph.get_tensor_by_name(name) for name in inputs.values()}
        for node in definition.node:
            tensor = fed.get(f"{node.name}:0")
            if tensor is not None:
                node.op = "Placeholder"
                del node.input[:]
                node.attr.clear()
                node.attr["dtype"].type = tensor.dtype.as_datatype_enum
                node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
        ends = sorted({name.partition(":")[0] for name in outputs.values()})
        used = tf.compat.v1.graph_util.extract_sub_graph(definition, ends)
        constant = convert_to_constants.convert_variables_to_constants_from_session_graph(
            session, used, ends
        )
    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.graph_util.import_graph_def(constant, name=""), []
    )
    tensor = wrapped.graph.get_tensor_by_name
    pruned = wrapped.prune([*map(tensor, inputs.values())], [*map(tensor, outputs.values())])
    return _inlined(pruned, list(inputs), list(outputs))


def _inlined(concrete: Any, inputs: list[str], outputs: list[str]) -> Frozen:
    from tensorflow.python.framework import convert_to_constants

    frozen = convert_to_constants.convert_variables_to_constants_v2(
        concrete, lower_control_flow=False, aggressive_inlining=True
    )
    if len(frozen.inputs) != len(inputs):
        raise LoadFailed("the signature holds tables or other resources that are no constants")
    return Frozen(
        frozen.graph,
        {name: tensor.name for name, tensor in zip(inputs, frozen.inputs, strict=True)},
        {name: tensor.name for name, tensor in zip(outputs, frozen.outputs, strict=True)},
    )


def _no_signature(name: str, found: Any) -> InvalidArgument:
    there = ", ".join(sorted(n for n in found if not n.startswith("__")))
    return InvalidArgument(f"the model has no signature '{name}'; it has {there or 'none'}")


def write(frozen: Frozen, folder: Path) -> None:
    """Writes a SavedModel whose only signature is ``serving_default``, with the same names."""
    tf = tensorflow()
    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session, graph.as_default():
        inputs, outputs = _imported(tf, frozen)
        tf.compat.v1.saved_model.simple_save(session, str(folder), inputs, outputs)


def definition(frozen: Frozen) -> tuple[Any, dict[str, str], dict[str, str]]:
    """The ``GraphDef`` between inputs and outputs, and their tensors' names in it."""
    tf = tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        inputs, outputs = _imported(tf, frozen)
        ends = [tensor.op.name for tensor in outputs.values()]
        used = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), ends)
    return (
        used,
        {name: tensor.name for name, tensor in inputs.items()},
        {name: tensor.name for name, tensor in outputs.items()},
    )


def _imported(tf: Any, frozen: Frozen) -> tuple[dict[str, Any], dict[str, Any]]:
    """Imports the graph into the current one, its inputs replaced by placeholders."""
    inputs = {}
    for index, (name, tensor) in enumerate(frozen.inputs.items()):
        was = frozen.graph.get_tensor_by_name(tensor)
        inputs[name] = tf.compat.v1.placeholder(was.dtype, was.shape, f"crossfade_input_{index}")
    # Without variables the order of things does not matter, and checks are no part of an answer.
    definition = frozen.graph.as_graph_def()
    for node in definition.node:
        data = [name for name in node.input if not name.startswith("^")]
        del node.input[:]
        node.input.extend(data)
    found = tf.graph_util.import_graph_def(
        definition,
        input_map={frozen.inputs[name]: tensor for name, tensor in inputs.items()},
        return_elements=list(frozen.outputs.values()),
        name="model",
    )
    outputs = {
        name: tf.identity(tensor, f"crossfade_output_{index}")
        for index, (name, tensor) in enumerate(zip(frozen.outputs, found, strict=True))
    }
    return inputs, outputs
