"""What each weight is for, by the operation that reads it and the place it is read at. Pure."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from crossfade.training.weights.graph import Array, Graph, Node


class Role(enum.Enum):
    """What a weight is for."""

    CONV_KERNEL = "conv_kernel"
    DEPTHWISE_KERNEL = "depthwise_kernel"
    DENSE_KERNEL = "dense_kernel"
    BIAS = "bias"
    BN_GAMMA = "bn_gamma"
    BN_BETA = "bn_beta"
    BN_MEAN = "bn_mean"
    BN_VARIANCE = "bn_variance"
    EMBEDDING = "embedding"
    CONSTANT = "constant"


_NORM: Final = (Role.BN_GAMMA, Role.BN_BETA, Role.BN_MEAN, Role.BN_VARIANCE)


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """One place at which a constant is read.

    Attributes:
        layout: order of a kernel's axes, in the letters of its format; "" of a vector.
        order: number of the node in the graph.
    """

    tensor: str
    role: Role
    layout: str
    node: Node
    order: int


def uses(graph: Graph) -> list[Use]:
    """Every reading of a weight, in the order in which a simplified graph computes."""
    found = []
    for order, node in enumerate(graph.nodes):
        for place, tensor in enumerate(node.inputs):
            if tensor in graph.constants:
                role, layout = _role(node, place, graph.constants[tensor])
                if role is not Role.CONSTANT or _counts(graph, tensor):
                    found.append(Use(tensor, role, layout, node, order))
    return found


def _role(node: Node, place: int, value: Array) -> tuple[Role, str]:
    if node.op == "conv" and place == 1:
        layout = node.attributes["kernel_layout"]
        return (Role.DEPTHWISE_KERNEL if is_depthwise(node, value) else Role.CONV_KERNEL), layout
    if node.op == "matmul" and place == 1:
        return Role.DENSE_KERNEL, "OI" if node.attributes["turned"][1] else "IO"
    if node.op in ("conv", "matmul") and place == 2:
        return Role.BIAS, ""
    if node.op == "batch_norm" and place > 0:
        return _NORM[place - 1], ""
    if node.op == "gather" and place == 0 and value.ndim == 2 and value.dtype.kind == "f":
        return Role.EMBEDDING, "VD"
    return Role.CONSTANT, ""


def is_depthwise(node: Node, kernel: Array) -> bool:
    """Whether each channel of the picture has kernels of its own."""
    layout = node.attributes["kernel_layout"]
    if layout in ("HWIM", "1HWO"):
        return True
    groups = node.attributes.get("groups", 1)
    return bool(groups > 1 and kernel.shape[layout.index("I")] == 1)


def _counts(graph: Graph, tensor: str) -> bool:
    """Whether a constant without a role is a weight: a variable, or a row of real numbers."""
    value = graph.constants[tensor]
    return tensor in graph.origins and value.dtype.kind == "f" and value.size > 1
