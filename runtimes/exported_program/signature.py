"""What a program takes and gives, out of its graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Signature, TensorSpec

# By the name that PyTorch has for it.
DTYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A signature, and how tensors become a call.

    Attributes:
        leaves: of the arguments, in order: the name of an input, or a constant.
        outputs: of what is returned, in order: a name, or ``None`` for what is no tensor.
    """

    signature: Signature
    leaves: Sequence[tuple[str | None, Any]]
    outputs: Sequence[str | None]


def bind(program: Any, output_names: Sequence[str]) -> Bound:
    """Reads the signature of a ``torch.export.ExportedProgram``.

    Args:
        program: the program.
        output_names: for its outputs, instead of those that it has.

    Raises:
        LoadFailed: it takes or gives what is no tensor, or keeps a state.
    """
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    leaves: list[tuple[str | None, Any]] = []
    firsts: set[str] = set()
    inputs: list[TensorSpec] = []
    for given in signature.input_specs:
        if given.kind.name != "USER_INPUT":
            continue
        kind = type(given.arg).__name__
        if kind == "ConstantArgument":
            leaves.append((None, given.arg.value))
            continue
        inputs.append(_spec(given.arg.name, values.get(given.arg.name), firsts))
        leaves.append((given.arg.name, None))
    _check_stateless(program)
    outputs = _outputs(program, values, output_names, firsts)
    specs = [spec for _, spec in outputs if spec is not None]
    if not inputs or not specs:
        raise LoadFailed("the program has no inputs, or no outputs, that are tensors")
    derived = Signature.derive(inputs, specs)
    if len(firsts) > 1:  # the first dimensions vary apart from each other
        derived = dataclasses.replace(derived, batched=False)
    return Bound(derived, leaves, [name if spec else None for name, spec in outputs])


def _outputs(
    program: Any, values: Mapping[str, Any], output_names: Sequence[str], firsts: set[str]
) -> list[tuple[str, TensorSpec | None]]:
    found: list[tuple[str, Any]] = []
    for given in program.graph_signature.output_specs:
        if given.kind.name == "BUFFER_MUTATION":
            raise _keeps_a_state(given.target)
        if given.kind.name == "USER_OUTPUT":
            found.append((getattr(given.arg, "name", ""), given.arg))
    tree = program.call_spec.out_spec
    flat = all(child.is_leaf() for child in tree.children())
    if tree.type is dict and flat and not output_names:
        output_names = list(tree.context)
    names = [name for name, _ in found]
    if output_names:
        if len(output_names) != len(found):
            raise LoadFailed(
                f"option 'output_names' has {len(output_names)} names for {len(found)} outputs"
            )
        names = list(output_names)
    if len(set(names)) != len(names):
        raise LoadFailed("two outputs have the same name; set the option 'output_names'")
    return [
        (name, _spec(name, values.get(graph), firsts))
        if type(arg).__name__ == "TensorArgument"
        else (name, None)
        for name, (graph, arg) in zip(names, found, strict=True)
    ]


def _check_stateless(program: Any) -> None:
    """Refuses a program that writes into its own buffers, by itself or through a view of one."""
    signature = program.graph_signature
    own = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                root = _root(value)
                if root in own:
                    raise _keeps_a_state(own[root])


def _root(node: Any) -> str:
    """The name of what a node is a view of, or of the node itself."""
    while node.args and (schema := getattr(node.target, "_schema", None)) is not None:
        if not any(returned.alias_info is not None for returned in schema.returns):
            break
        node = node.args[0]
    return str(node.name)


def _keeps_a_state(buffer: str) -> LoadFailed:
    return LoadFailed(
        f"the program changes its own buffer '{buffer}' with every run: export the model in eval"
        " mode, and give its state in and out as tensors"
    )


def _spec(name: str, value: Any, firsts: set[str]) -> TensorSpec:
    dtype = DTYPES.get(str(getattr(value, "dtype", "")).removeprefix("torch."))
    if dtype is None:
        raise LoadFailed(f"'{name}' is no tensor of a type that can be served")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    if shape:
        firsts.add(str(value.shape[0]))
    return TensorSpec(name, dtype, shape)
