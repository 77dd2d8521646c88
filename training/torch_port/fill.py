"""Fills a PyTorch module of one's own with an export's weights: by role and order, not by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.torch_port.module import torch_kernel
from crossfade.training.weights.graph import Array, Graph, Node
from crossfade.training.weights.roles import Role, is_depthwise, uses
from crossfade.training.weights.simplify import simplified

_OF_OP: Final = {"matmul": "dense", "batch_norm": "batch norm", "gather": "embedding"}
_NORM_FIELDS: Final = ("weight", "bias", "running_mean", "running_var")


@dataclasses.dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of either side: its tensors by field, in PyTorch's order of axes."""

    name: str
    kind: str
    tensors: dict[str, Any]
    epsilon: float = 0.0
    origins: tuple[str, ...] = ()


def fill(module: nn.Module, graph: Graph) -> set[str]:
    """Copies weights into a module; the n-th layer of a kind takes those of the n-th in the graph.

    Layers of a module are taken in the order in which it registered them, which must be that of
    computing. Batch normalisations also take the export's epsilon. Padding is the module's own
    affair: SAME with a stride is not what ``padding=1`` does, which a parity report shows.

    Args:
        module: with convolutions, linear layers, batch normalisations and embeddings.
        graph: as it was read.

    Returns:
        Names of the weights that were copied.

    Raises:
        FailedPrecondition: number, kind or shape of any layer differs. The message has every
            difference, and nothing was copied.
    """
    theirs, ours = list(_export_layers(graph)), list(_module_layers(module))
    wrong: list[str] = []
    pairs: list[tuple[_Layer, _Layer]] = []
    for kind in sorted({layer.kind for layer in (*theirs, *ours)}):
        from_export = [layer for layer in theirs if layer.kind == kind]
        from_module = [layer for layer in ours if layer.kind == kind]
        if len(from_export) != len(from_module):
            wrong.append(f"{kind}: {len(from_export)} in the export, {len(from_module)} here")
            longer, there = (
                (from_export, "missing here")
                if len(from_export) > len(from_module)
                else (from_module, "not in the export")
            )
            rest = longer[min(len(from_export), len(from_module)) :]
            wrong += [f"{kind} '{layer.name}': {there}" for layer in rest]
        pairs += zip(from_export, from_module, strict=False)
    for source, target in pairs:
        wrong += _differences(source, target)
    if wrong:
        raise FailedPrecondition("the module does not fit the export:\n  - " + "\n  - ".join(wrong))
    with torch.no_grad():
        for source, target in pairs:
            for field, value in source.tensors.items():
                target.tensors[field].copy_(torch.from_numpy(np.array(value)))
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    for norm, source in zip(norms, (x for x in theirs if x.kind == "batch norm"), strict=True):
        norm.eps = source.epsilon
    return {origin for layer in theirs for origin in layer.origins}


def _differences(source: _Layer, target: _Layer) -> Iterable[str]:
    for field in sorted(source.tensors.keys() | target.tensors.keys()):
        was, here = source.tensors.get(field), target.tensors.get(field)
        if was is None or here is None:
            side = "the export has none" if was is None else "there is none here"
            yield f"{source.kind} '{target.name}': {field}: {side} ('{source.name}')"
        elif tuple(was.shape) != tuple(here.shape):
            yield (
                f"{source.kind} '{target.name}': {field} is {tuple(here.shape)} here and"
                f" {tuple(was.shape)} in the export ('{source.name}')"
            )


def _export_layers(graph: Graph) -> Iterable[_Layer]:
    plain = simplified(graph)
    by_node: dict[int, list[Any]] = {}
    for use in uses(plain):
        if use.role is not Role.CONSTANT:
            by_node.setdefault(use.order, []).append(use)
    for found in by_node.values():
        node: Node = found[0].node
        kernel = plain.constants[found[0].tensor]
        tensors: dict[str, Array] = {}
        if node.op == "batch_norm":
            for field, tensor in zip(_NORM_FIELDS, node.inputs[1:], strict=True):
                if tensor:
                    tensors[field] = plain.constants[tensor].reshape(-1)
            size = next(iter(tensors.values())).size
            tensors.setdefault("weight", np.ones(size, np.float32))
            tensors.setdefault("bias", np.zeros(size, np.float32))
        else:
            tensors["weight"] = torch_kernel(node, kernel)
            if len(node.inputs) > 2 and node.inputs[2] and node.op != "gather":
                tensors["bias"] = plain.constants[node.inputs[2]].reshape(-1)
        depthwise = node.op == "conv" and is_depthwise(node, kernel)
        kind = _OF_OP.get(node.op, "depthwise convolution" if depthwise else "convolution")
        origins = tuple(plain.origins.get(use.tensor, use.tensor) for use in found)
        yield _Layer(node.name, kind, tensors, node.attributes.get("epsilon", 0.0), origins)


def _module_layers(module: nn.Module) -> Iterable[_Layer]:
    for name, layer in module.named_modules():
        fields: tuple[str, ...] = ("weight", "bias")
        if isinstance(layer, _BatchNorm):
            kind, fields = "batch norm", _NORM_FIELDS
        elif isinstance(layer, nn.Conv2d):
            depthwise = layer.groups > 1 and layer.groups == layer.in_channels
            kind = "depthwise convolution" if depthwise else "convolution"
        elif isinstance(layer, nn.Linear):
            kind = "dense"
        elif isinstance(layer, nn.Embedding):
            kind, fields = "embedding", ("weight",)
        else:
            continue
        found = {field: getattr(layer, field) for field in fields}
        yield _Layer(name, kind, {field: t for field, t in found.items() if t is not None})
