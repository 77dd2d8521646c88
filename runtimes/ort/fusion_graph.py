"""Merges ONNX graphs and eliminates what they have in common. Imports onnx and onnx_ir.

Values are known by identity here, not by name, so that two graphs meet without wiring: the second
one's nodes are moved into the first. Weights are compared by content, nodes by operator,
attributes and inputs; a backbone that two graphs share falls together from its input on, as far as
it is the same, and no further.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir
from onnx_ir.passes import common

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.fusing import Branch

# Elements; more than any tensor has.
_ANY_SIZE: Final = 1 << 60
# What would be drawn once where each model draws for itself.
_RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
# Protocol buffers end at 2 GiB; larger weights are written beside the graph.
_INLINE_BYTES: Final = 1 << 30
_PRODUCTS: Final = frozenset({"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm"})
_CONVOLUTIONS: Final = frozenset({"Conv", "ConvInteger", "QLinearConv"})


def fuse_graphs(branches: Sequence[Branch], target: Path) -> dict[str, Any]:
    """Writes the fused graph to ``target``; returns the fields of ``Fused`` but its path.

    Raises:
        FailedPrecondition: the graphs cannot be one, and why.
    """
    models = [_read(branch) for branch in branches]
    nodes = sum(len(list(model.graph.all_nodes())) for model in models)
    weights = [v for model in models for v in _weights(model.graph.initializers.values())]
    weights_bytes = sum(_bytes(value) for value in weights)
    names = [[output.name for output in model.graph.outputs] for model in models]
    fused = _merge(models, branches)
    _share(fused)
    mapping = _name(fused, names)
    common.ShapeInferencePass()(fused)
    counts = _count(fused.graph, [len(outputs) for outputs in names])
    for value in _inner(fused.graph):
        value.shape = None  # see _merge: what was inferred goes by names that others use, too
    inline = sum(_bytes(v) for v in fused.graph.initializers.values()) < _INLINE_BYTES
    ir.save(fused, target, external_data=None if inline else f"{target.name}.data")
    return {
        "outputs": mapping,
        "nodes": nodes,
        "weights_bytes": weights_bytes,
        **counts,
    }


def _read(branch: Branch) -> ir.Model:
    """Reads a graph with its weights, without functions, constants in nodes and other outputs."""
    model = ir.external_data.load_to_model(ir.load(branch.path))
    for step in (
        common.InlinePass(),
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    ):
        step(model)
    graph = model.graph
    kept = [output for output in graph.outputs if output.name in branch.outputs]
    if missing := set(branch.outputs) - {output.name for output in kept}:
        raise FailedPrecondition(f"a graph has no output {', '.join(sorted(missing))}")
    graph.outputs.clear()
    graph.outputs.extend(kept)
    common.RemoveUnusedNodesPass()(model)
    drawing = {node.op_type for node in graph.all_nodes() if node.op_type in _RANDOM}
    if drawing:
        raise FailedPrecondition(f"a graph draws random numbers ({', '.join(sorted(drawing))})")
    return model


def _merge(models: Sequence[ir.Model], branches: Sequence[Branch]) -> ir.Model:
    """Moves all graphs into one over the same inputs, each output a value of its own.

    Symbolic dimensions of one name are one size to ONNX Runtime, which plans memory by that: those
    of different graphs must not meet, so that inner values have none.
    """
    merged = ir.Model(
        ir.Graph([], [], nodes=[], opset_imports=_opsets(models), name="fused"),
        ir_version=max(model.ir_version for model in models),
    )
    target = merged.graph
    inputs: dict[str, ir.Value] = {}
    for index, (model, branch) in enumerate(zip(models, branches, strict=True)):
        graph = model.graph
        outputs = list(graph.outputs)
        for value in _inner(graph):
            value.shape = None
        _prefix(graph, f"{index}/")
        dims: dict[str, Any] = {}
        for value in list(graph.inputs):
            name = branch.inputs[(value.name or "").removeprefix(f"{index}/")]
            first = inputs.get(name)
            if first is None:
                inputs[name] = value
                continue
            dims |= _same(name, first, value)
            value.replace_all_uses_with(first)
            outputs = [first if output is value else output for output in outputs]
        for output in outputs:
            if not output.is_graph_input() and output.shape is not None:
                output.shape = ir.Shape([_dim(d, index, dims) for d in output.shape])
        weights = list(graph.initializers.values())
        nodes = list(graph)
        graph.outputs.clear()
        graph.inputs.clear()
        graph.initializers.clear()
        graph.remove(nodes)
        for value in weights:
            target.register_initializer(value)
        target.extend(nodes)
        target.outputs.extend(outputs)
    target.inputs.extend(inputs.values())
    for name, value in inputs.items():
        value.name = name
    return merged


def _opsets(models: Sequence[ir.Model]) -> dict[str, int]:
    found: dict[str, int] = {}
    for model in models:
        for domain, version in model.graph.opset_imports.items():
            name = "" if domain == "ai.onnx" else domain
            if found.setdefault(name, version) != version:
                raise FailedPrecondition(
                    f"the graphs are of different operator sets ({name or 'ai.onnx'}"
                    f" {found[name]} and {version}); export them with the same one"
                )
    return found


def _prefix(graph: ir.Graph, prefix: str) -> None:
    """Makes every name unlike those of other graphs, subgraphs' too."""
    values: dict[int, ir.Value] = {}
    for inner in (graph, *graph.subgraphs()):
        for value in (*inner.inputs, *inner.initializers.values()):
            values[id(value)] = value
        for node in inner:
            node.name = f"{prefix}{node.name}" if node.name else None
            values |= {id(value): value for value in node.outputs if value.name}
    for value in values.values():
        value.name = f"{prefix}{value.name}"


def _same(name: str, first: ir.Value, other: ir.Value) -> dict[str, Any]:
    """Checks that two inputs can be one; returns the other's symbolic sizes as the first's."""
    if first.dtype != other.dtype:
        raise FailedPrecondition(
            f"input '{name}' is {first.dtype} in one graph and {other.dtype} in another"
        )
    ours, theirs = first.shape, other.shape
    if ours is None or theirs is None:
        if ours is not theirs:
            raise FailedPrecondition(f"input '{name}' has a shape in one graph and none in another")
        return {}
    sizes = [d if isinstance(d, int) else None for d in ours]
    if sizes != [d if isinstance(d, int) else None for d in theirs]:
        raise FailedPrecondition(f"input '{name}' is {ours} in one graph and {theirs} in another")
    pairs = zip(ours, theirs, strict=True)
    return {d.value: o for o, d in pairs if isinstance(d, ir.SymbolicDim) and d.value is not None}


def _dim(dim: Any, index: int, dims: Mapping[str, Any]) -> Any:
    if isinstance(dim, int) or dim.value is None:
        return dim
    return dims.get(dim.value, dim if index == 0 else ir.SymbolicDim(f"{index}/{dim.value}"))


def _share(model: ir.Model) -> None:
    for step in (
        common.DeduplicateHashedInitializersPass(size_limit=_ANY_SIZE),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        step(model)


def _name(model: ir.Model, names: Sequence[Sequence[str | None]]) -> list[dict[str, str]]:
    """Gives the outputs their names, which eliminations changed; returns them by branch."""
    outputs = iter(model.graph.outputs)
    taken = {value.name for value in model.graph.inputs}
    mapping: list[dict[str, str]] = []
    for index, own in enumerate(names):
        mapping.append({})
        for name in own:
            unique = f"{index}/{name}"
            while unique in taken:
                unique += "_"
            next(outputs).name = mapping[-1][str(name)] = unique
    return mapping


def _count(graph: ir.Graph, outputs: Sequence[int]) -> dict[str, Any]:
    """What is shared: each branch needs what leads to its outputs."""
    ends = list(graph.outputs)
    needed: list[set[ir.Node]] = []
    at = 0
    for count in outputs:
        needed.append(_upstream(ends[at : at + count]))
        at += count
    nodes = list(graph)
    users = {node: sum(node in branch for branch in needed) for node in nodes}
    weights: dict[ir.Value, set[int]] = {}
    for index, branch in enumerate(needed):
        for node in branch:
            for value in _weights(_inputs(node)):
                weights.setdefault(value, set()).add(index)
    work = {node: _work(node) for node in nodes}
    unfused = sum(work[node] * users[node] for node in nodes)
    return {
        "fused_nodes": len(list(graph.all_nodes())),
        "shared_nodes": sum(count > 1 for count in users.values()),
        "shared_bytes": sum(_bytes(v) * (len(by) - 1) for v, by in weights.items()),
        "saved": 1 - sum(work.values()) / unfused if unfused else 0.0,
    }


def _upstream(ends: Sequence[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting = [node for value in ends if (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [n for v in _inputs(node) if (n := v.producer()) is not None]
    return found


def _inputs(node: ir.Node) -> list[ir.Value]:
    """What a node needs, its subgraphs too."""
    inner = [n for a in node.attributes.values() for g in _graphs(a) for n in g.all_nodes()]
    return [value for n in (node, *inner) for value in n.inputs if value is not None]


def _graphs(attribute: ir.Attr) -> list[Any]:
    if attribute.type is ir.AttributeType.GRAPH:
        return [attribute.value]
    return list(attribute.value) if attribute.type is ir.AttributeType.GRAPHS else []


def _work(node: ir.Node) -> int:
    """Multiplications of a node, about; what has none counts the elements that it makes."""
    made = _elements(node.outputs[0].shape) if node.outputs else 0
    shapes = [value.shape for value in node.inputs if value is not None]
    if node.op_type in _PRODUCTS and shapes and shapes[0] is not None and len(shapes[0]):
        transposed = node.op_type == "Gemm" and node.attributes.get_int("transA", False)
        return made * _size(shapes[0][0 if transposed else -1])
    kernel = 3 if node.op_type == "QLinearConv" else 1
    if node.op_type in _CONVOLUTIONS and len(shapes) > kernel:
        return made * _elements(list(shapes[kernel] or ())[1:])
    weights = [value for value in _weights(_inputs(node)) if value.shape and len(value.shape) > 1]
    return max(made, sum(_elements(value.shape) for value in weights))


def _size(dim: Any) -> int:
    return dim if isinstance(dim, int) and dim > 0 else 1


def _elements(shape: Any) -> int:
    return math.prod(_size(dim) for dim in shape) if shape is not None else 1


def _inner(graph: ir.Graph) -> list[ir.Value]:
    """Values that nodes make, in subgraphs too, but for the graph's outputs."""
    return [v for n in graph.all_nodes() for v in n.outputs if v not in graph.outputs]


def _weights(values: Any) -> list[ir.Value]:
    return [value for value in values if value.is_initializer()]


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0
