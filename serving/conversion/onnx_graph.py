"""ONNX files as they are to be served: named as the source's signature, no foreign operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import Signature
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line

# Domains that ONNX Runtime has built in.
_KNOWN_DOMAINS: Final = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
_CONVOLUTIONS: Final = {"Conv", "ConvTranspose"}


def read(path: Path) -> Any:
    """Reads and checks a file; raises LoadFailed where it is none."""
    onnx = require("onnx", "convert", "converting ONNX models")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(str(path))
    except Exception as error:
        raise LoadFailed(f"not an ONNX model that can be read: {one_line(error, path)}") from error
    return model


def custom_operations(model: Any) -> list[str]:
    """Operations of domains that ONNX Runtime does not have built in, as ``domain.Name``."""
    own = {(function.domain, function.name) for function in model.functions}
    found = {
        f"{node.domain}.{node.op_type}"
        for graph in _graphs(model.graph)
        for node in graph.node
        if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in own
    }
    return sorted(found)


def check_operations(model: Any) -> None:
    """Raises InvalidArgument where the model has operations that no converter knows."""
    custom = custom_operations(model)
    if custom:
        raise InvalidArgument(
            f"the model has custom operations, which cannot be converted: {', '.join(custom)}"
        )


def renewed(model: Any, opset: int) -> Any:
    """The model with at least that opset, and without weights among its inputs (as of IR 3).

    Raises:
        LoadFailed: an operation has no newer form.
    """
    weights = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    own = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), opset)
    if own < opset:
        onnx = require("onnx", "convert", "converting ONNX models")
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except Exception as error:
            raise LoadFailed(
                f"the model is of opset {own} and cannot be renewed: {one_line(error)}"
            ) from error
    model.ir_version = max(model.ir_version, 4)
    used = {entry.domain: entry for entry in model.opset_import}  # a merged model names some twice
    del model.opset_import[:]
    model.opset_import.extend(used.values())
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def between_convolutions(model: Any) -> list[str]:
    """Names of the convolutions, and of nodes that pass values from one to another.

    Nodes without a name get one.
    """
    nodes = list(model.graph.node)
    for number, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}_{number}"
    after, before = set[str](), set[str]()  # tensors that a convolution makes, or will read
    follow = [_reached(node, node.input, node.output, after) for node in nodes]
    lead = [_reached(node, node.output, node.input, before) for node in reversed(nodes)]
    kept = zip(nodes, follow, reversed(lead), strict=True)
    return [node.name for node, follows, leads in kept if follows and leads]


def _reached(node: Any, near: Iterable[str], far: Iterable[str], tensors: set[str]) -> bool:
    """Whether a node is a convolution or touches one of ``tensors``; its far side is added."""
    reached = node.op_type in _CONVOLUTIONS or not tensors.isdisjoint(near)
    if reached:
        tensors.update(name for name in far if name)
    return reached


def rename(model: Any, names: Mapping[str, str]) -> None:
    """Renames tensors everywhere, also where branches and loops read them from outside."""
    for graph in _graphs(model.graph):
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = names.get(value.name, value.name)


def describe(model: Any, signature: Signature) -> None:
    """Writes the signature's shapes into inputs and outputs; -1 gets a name, the batch ``batch``.

    Where the signature knows a size that the graph does not, the signature counts; otherwise the
    graph keeps what it says.
    """
    specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
    named: dict[str, str] = {}
    for value in (*model.graph.input, *model.graph.output):
        spec = specs.get(value.name)
        shape = value.type.tensor_type.shape
        if spec is None or spec.shape is None or len(shape.dim) not in (0, len(spec.shape)):
            continue
        had_rank = bool(shape.dim) or not spec.shape
        for index, size in enumerate(spec.shape):
            dim = shape.dim[index] if had_rank else shape.dim.add()
            if size >= 0:
                dim.dim_value = size
            elif dim.dim_value <= 0 or (index == 0 and signature.batched):
                dim.dim_param = _name(index, dim.dim_param, signature.batched, named)
    # Whatever an exporter made up inside goes by the old names: inference finds them again.
    del model.graph.value_info[:]


def _name(index: int, was: str, batched: bool, named: dict[str, str]) -> str:
    if index == 0 and batched:
        return "batch"
    if was and not re.fullmatch(r"unk__\d+", was):
        return was
    return named.setdefault(was or f"#{len(named)}", f"size_{len(named) + 1}")


def _graphs(graph: Any) -> Iterable[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)
