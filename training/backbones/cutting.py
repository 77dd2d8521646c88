"""Finds where an export's features end and its own answer begins, by structure. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.weights.graph import Graph, Node, ordered, pruned
from crossfade.training.weights.simplify import simplified

FEATURES: Final = "features"


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """The features of a graph.

    Attributes:
        graph: ends in them; its only output is ``features``.
        tensor: their name in the whole graph.
        layout: "NHWC" or "NCHW" of feature maps, "" of rows.
        before: the operation that they were cut in front of.
    """

    graph: Graph
    tensor: str
    layout: str
    before: str


def cut(graph: Graph, tensor: str = "") -> Cut:
    """Cuts a graph at its last features.

    These are the maps that the last global pooling reads which everything passes through (the
    poolings of squeeze-and-excitation have a way around them); without one, the maps that are
    flattened for the first dense layer; without dense layers, the maps that the last convolution
    reads, as in a dense detector; without maps, the rows that the last dense layer reads.

    Args:
        graph: as it was read.
        tensor: cuts here instead; a tensor's or a node's name.

    Raises:
        InvalidArgument: there is no such place.
    """
    plain = simplified(graph)
    outputs = dict(list(plain.outputs.items())[:1]) if len(plain.outputs) > 1 else plain.outputs
    plain = pruned(plain, outputs, [entry.tensor for entry in plain.inputs.values()])
    if tensor:
        node = next((n for n in plain.nodes if tensor in (n.name, *n.outputs)), None)
        if node is None:
            raise InvalidArgument(f"the graph has no tensor or node '{tensor}'")
        return _made(plain, node.outputs[0], _layout_before(plain, node), f"'{tensor}'")
    for finder in (_pooled, _flattened, _convolved, _rows):
        for found, layout, before in finder(plain):
            if _all_pass(plain, found):
                return _made(plain, found, layout, before)
    raise InvalidArgument("the graph has no features: no pooling, no convolution, no dense layer")


def _made(graph: Graph, tensor: str, layout: str, before: str) -> Cut:
    entries = [entry.tensor for entry in graph.inputs.values()]
    part = pruned(graph, {FEATURES: tensor}, entries)
    used = {name for node in part.nodes for name in node.inputs} | {tensor}
    inputs = {name: entry for name, entry in graph.inputs.items() if entry.tensor in used}
    return Cut(dataclasses.replace(part, inputs=inputs, unread={}), tensor, layout, before)


def _pooled(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for node in reversed(graph.nodes):
        if node.op in ("mean", "max") and len(node.inputs) > 1:
            axes = graph.constants.get(node.inputs[1], np.zeros(0)).reshape(-1)
            spatial: dict[tuple[int, ...], str] = {
                (1, 2): "NHWC",
                (-3, -2): "NHWC",
                (2, 3): "NCHW",
                (-2, -1): "NCHW",
            }
            layout = spatial.get(tuple(sorted(int(axis) for axis in axes)))
            if layout is not None:
                yield node.inputs[0], layout, "the global pooling"
        elif node.op == "avg_pool" and not _convolved_after(graph, node):
            yield node.inputs[0], node.attributes["layout"], "the last pooling"


def _flattened(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for node in graph.nodes:
        if node.op == "reshape" and (layout := _layout_before(graph, node)):
            after = ordered(graph.nodes, graph.outputs.values(), node.outputs)
            if any(n.op == "matmul" for n in after) and not any(n.op == "conv" for n in after):
                yield node.inputs[0], layout, "the flattening"


def _convolved(graph: Graph) -> Iterator[tuple[str, str, str]]:
    if any(node.op == "matmul" for node in graph.nodes):
        return
    for node in reversed(graph.nodes):
        if node.op == "conv":
            yield node.inputs[0], node.attributes["layout"], "the last convolution"


def _rows(graph: Graph) -> Iterator[tuple[str, str, str]]:
    for node in reversed(graph.nodes):
        if node.op == "matmul" and node.inputs[0] not in graph.constants:
            yield node.inputs[0], "", "the last dense layer"


def _convolved_after(graph: Graph, pool: Node) -> bool:
    """Whether kernels larger than a pixel follow."""
    after = ordered(graph.nodes, graph.outputs.values(), pool.outputs)
    for node in after:
        if node.op == "conv" and node.inputs[1] in graph.constants:
            layout = node.attributes["kernel_layout"]
            shape = graph.constants[node.inputs[1]].shape
            if shape[layout.index("H")] * shape[layout.index("W")] > 1:
                return True
    return False


def _layout_before(graph: Graph, node: Node) -> str:
    """The layout of the picture that a node reads or writes; "" where no layer says so."""
    inputs = [entry.tensor for entry in graph.inputs.values()]
    for before in reversed(ordered(graph.nodes, node.outputs, inputs)):
        if before.op in ("conv", "max_pool", "avg_pool"):
            return str(before.attributes["layout"])
        if before.op == "matmul" or (before.op == "reshape" and before is not node):
            return ""
    return ""


def _all_pass(graph: Graph, tensor: str) -> bool:
    """Whether the outputs need the inputs only by way of a tensor."""
    after = ordered(graph.nodes, graph.outputs.values(), [tensor])
    entries = {entry.tensor for entry in graph.inputs.values()}
    read = {name for node in after for name in node.inputs}
    return tensor in read and not (read - {tensor}) & entries and tensor not in graph.constants
