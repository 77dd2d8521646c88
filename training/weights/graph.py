"""An export's graph in one vocabulary, whatever format it was read from. Pure.

Operations are spelled in lower case with TensorFlow's meaning (``conv``, ``batch_norm``, ``mul``);
one that no reader knows keeps its own name after a colon (``tf:DecodeJpeg``), so that weights can
be read from a graph that cannot be ported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Pixels in front of and behind the picture: ((top, bottom), (left, right)).
Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    Attributes:
        inputs: tensors that it reads; "" is an input that was left out.
        outputs: tensors that it writes.
        attributes: what the operation needs to know; of a convolution ``strides``,
            ``dilations``, ``padding`` ("SAME", "VALID" or ``Padding``), ``groups``, ``layout``
            of the picture and ``kernel_layout``.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """What a caller gives.

    Attributes:
        shape: -1 is any size; ``None`` where even the rank is not known.
        quantization: scale and zero point of an input in 8 bits; the graph computes with
            ``scale * (value - zero_point)``.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...] | None
    quantization: tuple[float, int] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the file that the graph does not read."""

    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """One signature of an export.

    Attributes:
        source: "savedmodel", "tflite" or "onnx".
        nodes: each after those whose outputs it reads.
        inputs, outputs: by the names that a caller uses; an output is a tensor's name.
        constants: tensors whose values are in the file, dequantised.
        origins: for those constants that are weights, their name in the file.
        unread: weights of the file that no node reads, by name.
    """

    source: str
    nodes: tuple[Node, ...]
    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]
    constants: Mapping[str, Array]
    origins: Mapping[str, str]
    unread: Mapping[str, Stored] = dataclasses.field(default_factory=dict)


def writers(nodes: Iterable[Node]) -> dict[str, Node]:
    """The node that writes each tensor."""
    return {output: node for node in nodes for output in node.outputs}


def readers(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """The nodes that read each tensor, in order."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            found.setdefault(name, []).append(node)
    return found


def ordered(nodes: Iterable[Node], outputs: Iterable[str], known: Iterable[str] = ()) -> list[Node]:
    """The nodes that ``outputs`` need, each after those whose tensors it reads.

    Args:
        nodes: in any order.
        outputs: tensors that are wanted.
        known: tensors that are given; what writes them is not wanted.
    """
    by_output, given = writers(nodes), set(known)
    order: list[Node] = []
    done: set[str] = set()
    stack = [(tensor, False) for tensor in reversed(list(outputs))]
    while stack:
        tensor, left = stack.pop()
        node = by_output.get(tensor)
        if node is None or tensor in given:
            continue
        if left:
            order.append(node)
        elif node.outputs[0] not in done:
            done.add(node.outputs[0])
            stack.append((tensor, True))
            stack += [(name, False) for name in reversed(node.inputs)]
    return order


def pruned(graph: Graph, outputs: Mapping[str, str], known: Iterable[str] = ()) -> Graph:
    """The part of a graph that outputs need; constants that it does not read are left out."""
    nodes = ordered(graph.nodes, outputs.values(), known)
    used = {name for node in nodes for name in node.inputs} | set(outputs.values())
    constants = {name: value for name, value in graph.constants.items() if name in used}
    return dataclasses.replace(
        graph,
        nodes=tuple(nodes),
        outputs=dict(outputs),
        constants=constants,
        origins={name: origin for name, origin in graph.origins.items() if name in constants},
    )


def dtype_name(value: Array) -> str:
    """Numpy's name of an array's type."""
    return str(np.asarray(value).dtype)
