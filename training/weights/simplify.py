"""Puts a graph into the form that roles are read from: layers as one node each. Pure.

Exporters spell a batch normalisation as six operations on its statistics, a bias as an addition
of a reshaped vector. Both are found by what is computed, never by a name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from crossfade.training.weights.graph import Array, Graph, Node, ordered, readers, writers

_VIEWS: Final = frozenset({"identity", "reshape", "squeeze", "expand_dims"})


def simplified(graph: Graph) -> Graph:
    """The same function with ``batch_norm`` nodes, and biases as third inputs of their layers."""
    return _with_biases(_with_batch_norms(_with_plain_constants(graph)))


def _with_plain_constants(graph: Graph) -> Graph:
    """Views of constants become constants, and identities go."""
    constants, origins = dict(graph.constants), dict(graph.origins)
    alias: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        first, output = inputs[0] if inputs else "", node.outputs[0]
        if node.op == "identity":
            alias[output] = first
        elif node.op in _VIEWS and all(name in constants for name in inputs):
            constants[output] = _view(node, [constants[name] for name in inputs])
            if first in origins:
                origins[output] = origins[first]
        else:
            nodes.append(dataclasses.replace(node, inputs=inputs))
    outputs = {name: alias.get(tensor, tensor) for name, tensor in graph.outputs.items()}
    return _rebuilt(graph, nodes, outputs, constants, origins)


def _view(node: Node, values: list[Array]) -> Array:
    value = values[0]
    if node.op == "squeeze":
        return np.squeeze(value, node.attributes.get("axes") or None)
    if node.op == "expand_dims":
        return np.expand_dims(value, int(values[1].reshape(-1)[0]))
    return value.reshape([int(size) for size in values[1].reshape(-1)])


@dataclasses.dataclass(frozen=True, slots=True)
class _Norm:
    """A batch normalisation: its five inputs, and epsilon."""

    inputs: tuple[str, str, str, str, str]
    epsilon: float


class _Finder:
    """Looks for x * m + (beta - mean * m) with m = gamma / sqrt(variance + epsilon)."""

    def __init__(self, graph: Graph) -> None:
        self.constants = graph.constants
        self.by_output = writers(graph.nodes)

    def at(self, node: Node) -> _Norm | None:
        """The batch normalisation that ends in a node."""
        if node.op != "add":
            return None
        for scaled, shifted in (node.inputs, node.inputs[::-1]):
            product, rest = self._by(scaled, "mul"), self.by_output.get(shifted)
            if product is None or rest is None:
                continue
            for x, m in (product.inputs, product.inputs[::-1]):
                shift, scale = self._shift(rest, m), self._scale(m)
                if shift is not None and scale is not None and x not in self.constants:
                    gamma, variance, epsilon = scale
                    return _Norm((x, gamma, shift[0], shift[1], variance), epsilon)
        return None

    def _shift(self, node: Node, m: str) -> tuple[str, str] | None:
        """(beta, mean) of ``beta - mean * m``; beta is "" in ``-mean * m``."""
        if node.op == "sub" and node.inputs[0] in self.constants:
            mean = self._other(self._by(node.inputs[1], "mul"), m)
            return None if mean is None else (node.inputs[0], mean)
        if node.op == "mul" and (turned := self._other(node, m, constant=False)) is not None:
            negative = self._by(turned, "neg")
            if negative is not None and negative.inputs[0] in self.constants:
                return "", negative.inputs[0]
        return None

    def _scale(self, m: str) -> tuple[str, str, float] | None:
        """(gamma, variance, epsilon); gamma is "" where there is none."""
        node, gamma = self.by_output.get(m), ""
        if node is not None and node.op == "mul":
            for root, other in (node.inputs, node.inputs[::-1]):
                if other in self.constants and self._by(root, "rsqrt") is not None:
                    node, gamma = self._by(root, "rsqrt"), other
                    break
        if node is None or node.op != "rsqrt":
            return None
        total = self._by(node.inputs[0], "add")
        for variance, epsilon in (total.inputs, total.inputs[::-1]) if total else ():
            if variance in self.constants and self.constants.get(epsilon, np.zeros(2)).size == 1:
                return gamma, variance, float(self.constants[epsilon].reshape(-1)[0])
        return None

    def _by(self, tensor: str, op: str) -> Node | None:
        node = self.by_output.get(tensor)
        return node if node is not None and node.op == op else None

    def _other(self, product: Node | None, m: str, constant: bool = True) -> str | None:
        if product is None or m not in product.inputs:
            return None
        other = product.inputs[1 - product.inputs.index(m)]
        return other if (other in self.constants) == constant else None


def _with_batch_norms(graph: Graph) -> Graph:
    finder = _Finder(graph)
    nodes = []
    for node in graph.nodes:
        norm = finder.at(node)
        if norm is not None:
            attributes = {"epsilon": norm.epsilon, "layout": _norm_layout(graph.constants, norm)}
            nodes.append(
                dataclasses.replace(
                    node, op="batch_norm", inputs=norm.inputs, attributes=attributes
                )
            )
        else:
            nodes.append(node)
    return _rebuilt(graph, nodes, graph.outputs, graph.constants, graph.origins)


def _norm_layout(constants: Mapping[str, Array], norm: _Norm) -> str:
    """Which axis the statistics belong to: the one that they are not broadcast along."""
    shape = constants[norm.inputs[3]].shape
    wide = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
    return "NHWC" if not wide or wide[-1] == -1 else "NCHW"


def _with_biases(graph: Graph) -> Graph:
    by_output, used = writers(graph.nodes), readers(graph.nodes)
    kept, gone = dict.fromkeys(graph.outputs.values()), set()
    replaced: dict[str, Node] = {}
    for node in graph.nodes:
        if node.op != "add":
            continue
        for x, bias in (node.inputs, node.inputs[::-1]):
            layer = by_output.get(x)
            if layer is None or bias not in graph.constants or len(used[x]) > 1 or x in kept:
                continue
            if layer.outputs[0] in gone or not _is_bias(graph.constants, layer, node, bias):
                continue
            gone.add(layer.outputs[0])
            replaced[node.outputs[0]] = dataclasses.replace(
                layer, inputs=(*layer.inputs[:2], bias), outputs=node.outputs
            )
            break
    nodes = [replaced.get(node.outputs[0], node) for node in graph.nodes]
    return _rebuilt(graph, nodes, graph.outputs, graph.constants, graph.origins)


def _is_bias(constants: Mapping[str, Array], layer: Node, add: Node, bias: str) -> bool:
    if layer.op not in ("conv", "matmul") or layer.inputs[1] not in constants:
        return False
    if len(layer.inputs) > 2 and layer.inputs[2]:
        return False
    shape, wanted = constants[bias].shape, channels(layer, constants[layer.inputs[1]])
    if constants[bias].size != wanted:
        return False
    first = layer.op == "conv" and layer.attributes["layout"] == "NCHW"
    if len(shape) == 1:
        return not first or add.attributes.get("layout") == "NCHW"
    axis = len(shape) - 3 if first else len(shape) - 1
    return axis >= 0 and shape[axis] == wanted


def channels(layer: Node, kernel: Array) -> int:
    """How many channels a layer writes."""
    if layer.op == "matmul":
        return int(kernel.shape[-2 if layer.attributes["turned"][1] else -1])
    layout = layer.attributes["kernel_layout"]
    if layout == "HWIM":
        return int(kernel.shape[2] * kernel.shape[3])
    return int(kernel.shape[layout.index("O")])


def _rebuilt(
    graph: Graph,
    nodes: list[Node],
    outputs: Mapping[str, str],
    constants: Mapping[str, Any],
    origins: Mapping[str, str],
) -> Graph:
    given = [entry.tensor for entry in graph.inputs.values()]
    return dataclasses.replace(
        graph,
        nodes=tuple(ordered(nodes, outputs.values(), given)),
        outputs=dict(outputs),
        constants=dict(constants),
        origins=dict(origins),
    )
