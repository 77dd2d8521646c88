"""A PyTorch module that computes what an export's graph computes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.training.torch_port.layers import BatchNorm, Conv, Dense, Embedding
from crossfade.training.torch_port.operations import OPERATIONS
from crossfade.training.weights.graph import Array, Graph, Node, readers
from crossfade.training.weights.roles import is_depthwise
from crossfade.training.weights.simplify import simplified

_LAYERS: Final = frozenset({"conv", "matmul", "batch_norm", "gather"})
_FUSED: Final = frozenset({"relu", "relu6", "tanh", "quantized"})
_CALL: Final = re.compile(r"(^|/)(Stateful)?PartitionedCall(_\d+)?(?=/|$)")


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step of a forward pass.

    Attributes:
        layer: name of the module that does it; "" for an operation without weights.
        last: tensors that no later step reads.
    """

    node: Node
    layer: str
    inputs: tuple[str, ...]
    last: tuple[str, ...]


class Ported(nn.Module):
    """The graph as a module: layers hold the weights, the steps between them are the graph's.

    It takes the graph's inputs in the order of their names, in the export's own layout and range,
    and answers with one tensor, or a dictionary where the graph has several outputs.

    Attributes:
        layers: modules with weights by layer name.
        carried: names of the export's weights that are in here.
    """

    def __init__(self, graph: Graph) -> None:
        """Builds it; raises as ``port``."""
        super().__init__()
        graph = simplified(graph)
        _check(graph)
        self.graph = graph
        self.input_names = tuple(graph.inputs)
        self.output_names = tuple(graph.outputs)
        self.layers = nn.ModuleDict()
        self.carried: set[str] = set()
        self._shared: dict[tuple[str, str], nn.Parameter] = {}
        self._numbers: dict[str, Array] = {}
        self._buffer_names: dict[str, str] = {}
        self.steps = self._planned(graph)

    def forward(self, *inputs: Tensor) -> Any:
        """Runs the graph."""
        values = self.run(inputs)
        outputs = {name: values[tensor] for name, tensor in self.graph.outputs.items()}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run(
        self,
        inputs: Sequence[Tensor],
        keep: Sequence[str] = (),
        forced: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """Runs the graph and answers with its outputs and the tensors to keep, by tensor name.

        Args:
            inputs: in the order of ``input_names``.
            keep: tensors besides the outputs.
            forced: tensors that later steps read instead of what was computed, by name.

        Raises:
            InvalidArgument: the number of inputs is wrong.
        """
        if len(inputs) != len(self.input_names):
            raise InvalidArgument(
                f"the model takes {len(self.input_names)} inputs"
                f" ({', '.join(self.input_names)}), not {len(inputs)}"
            )
        entries = [self.graph.inputs[name].tensor for name in self.input_names]
        values: dict[str, Any] = dict(zip(entries, inputs, strict=True))
        kept: dict[str, Any] = {}
        wanted = {*self.graph.outputs.values(), *keep}
        kept.update({name: value for name, value in values.items() if name in wanted})
        for tensor in wanted & (self._numbers.keys() | self._buffer_names.keys()):
            kept[tensor] = self._value(tensor, values)
        for step in self.steps:
            given = [self._value(name, values) for name in step.inputs]
            if step.layer:
                answer = self.layers[step.layer](*given)
            else:
                answer = OPERATIONS[step.node.op](given, step.node.attributes)
            answers = answer if len(step.node.outputs) > 1 else (answer,)
            for name, value in zip(step.node.outputs, answers, strict=False):
                values[name] = forced[name] if forced and name in forced else value
                if name in wanted:
                    kept[name] = value
            for name in step.last:
                values.pop(name, None)
        return kept

    def layer_outputs(self) -> dict[str, str]:
        """The tensor that each layer with weights writes, in order.

        In TFLite an activation and the rounding to 8 bits are part of the operation: it is the
        tensor behind them.
        """
        after = readers(self.graph.nodes)
        found = {}
        for step in self.steps:
            if not step.layer:
                continue
            tensor = step.node.outputs[0]
            while self.graph.source == "tflite" and len(after.get(tensor, ())) == 1:
                (reader,) = after[tensor]
                if reader.op not in _FUSED:
                    break
                tensor = reader.outputs[0]
            found[step.layer] = tensor
        return found

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if not name:
            return None
        if name in self._buffer_names:
            return getattr(self, self._buffer_names[name])
        return values[name] if name in values else self._numbers[name]

    def _planned(self, graph: Graph) -> tuple[Step, ...]:
        read_last: dict[str, int] = {}
        for index, node in enumerate(graph.nodes):
            read_last.update(dict.fromkeys(node.inputs, index))
        steps = []
        for index, node in enumerate(graph.nodes):
            layer, inputs = self._layer(node, graph), node.inputs
            if layer:
                inputs = (node.inputs[1 if node.op == "gather" else 0],)
            for name in inputs:
                self._keep_constant(name, graph)
            last = tuple(n for n in dict.fromkeys(node.inputs) if read_last[n] == index)
            steps.append(Step(node, layer, inputs, last))
        for name in graph.outputs.values():
            self._keep_constant(name, graph)
        return tuple(steps)

    def _keep_constant(self, name: str, graph: Graph) -> None:
        if name not in graph.constants or name in self._numbers or name in self._buffer_names:
            return
        value = graph.constants[name]
        self.carried.add(graph.origins.get(name, name))
        if value.dtype.kind == "f":
            own = f"constant_{len(self._buffer_names)}"
            self.register_buffer(own, torch.from_numpy(np.array(value)))
            self._buffer_names[name] = own
        else:
            self._numbers[name] = value

    def _layer(self, node: Node, graph: Graph) -> str:
        """Makes the module of a node that has weights; "" for any other."""
        if node.op not in _LAYERS:
            return ""
        places = node.inputs[:1] if node.op == "gather" else node.inputs[1:]
        weights = [name for name in places if name]
        values = {name: graph.constants.get(name) for name in weights}
        if any(value is None or value.dtype.kind != "f" for value in values.values()):
            if node.op in ("conv", "batch_norm"):
                raise InvalidArgument(f"'{node.name}' ({node.op}) computes its weights itself")
            return ""
        if node.op == "gather" and (
            graph.constants[weights[0]].ndim != 2 or not _rows(node, graph)
        ):
            return ""
        if node.op == "matmul" and (node.attributes["turned"][0] or _rank(values, node) != 2):
            return ""
        module = self._module(node, graph)
        self.carried.update(graph.origins.get(name, name) for name in weights)
        named = weights[0] if node.op in ("gather", "batch_norm") else node.inputs[1]
        name = self._fresh_name(graph.origins.get(named, ""), node.name)
        self.layers[name] = module
        return name

    def _module(self, node: Node, graph: Graph) -> nn.Module:
        if node.op == "batch_norm":
            return self._batch_norm(node, graph)
        place = 0 if node.op == "gather" else 1
        kernel = node.inputs[place]
        turned = torch_kernel(node, graph.constants[kernel])
        weight = self._parameter(graph, kernel, f"{node.op} {turned.shape}", turned)
        if node.op == "gather":
            return Embedding(weight)
        bias = None
        if len(node.inputs) > 2 and node.inputs[2]:
            vector = graph.constants[node.inputs[2]].reshape(-1)
            bias = self._parameter(graph, node.inputs[2], "bias", vector)
        return Dense(weight, bias) if node.op == "matmul" else Conv(weight, bias, node.attributes)

    def _parameter(self, graph: Graph, tensor: str, use: str, value: Array) -> nn.Parameter:
        """The parameter of a weight; one that is read at two places is one parameter."""
        key = (graph.origins.get(tensor, tensor), use)
        if key not in self._shared:
            copied = torch.from_numpy(np.array(value, order="C"))
            self._shared[key] = nn.Parameter(copied)
        return self._shared[key]

    def _batch_norm(self, node: Node, graph: Graph) -> BatchNorm:
        _, gamma, beta, mean, variance = node.inputs
        channels = graph.constants[mean].size
        norm = BatchNorm(channels, node.attributes["epsilon"], node.attributes["layout"])
        for own, tensor in ((norm.weight, gamma), (norm.bias, beta)):
            if tensor:
                own.data = torch.from_numpy(np.array(graph.constants[tensor].reshape(-1)))
            else:
                own.requires_grad_(False)
        for field, tensor in (("running_mean", mean), ("running_var", variance)):
            statistics = torch.from_numpy(np.array(graph.constants[tensor].reshape(-1)))
            norm.get_buffer(field).copy_(statistics)
        return norm

    def _fresh_name(self, weight: str, node: str) -> str:
        """A module's name, for people: of its weight's folder, or of its node."""
        for name in (weight, _CALL.sub("", node).strip("/")):
            folder = name.strip("/").rpartition("/")[0]
            if base := re.sub(r"\W+", "_", folder.rpartition("/")[2]).strip("_"):
                break
        else:
            base = re.sub(r"\W+", "_", weight or node).strip("_") or "layer"
        count, fresh = 1, base
        while fresh in self.layers or hasattr(self.layers, fresh):
            count += 1
            fresh = f"{base}_{count}"
        return fresh


def torch_kernel(node: Node, value: Array) -> Array:
    """A kernel with its axes in PyTorch's order: [out, in / groups, height, width], [out, in]."""
    if node.op == "gather":
        return value
    if node.op == "matmul":
        return value if node.attributes["turned"][1] else value.T
    layout = node.attributes["kernel_layout"]
    if layout == "HWIM":
        height, width, channels, multiplier = value.shape
        return value.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    if layout == "1HWO":
        return value.transpose(3, 0, 1, 2)
    if is_depthwise(node, value) and layout == "OIHW":
        return value
    return value.transpose([layout.index(axis) for axis in "OIHW"])


def port(graph: Graph) -> Ported:
    """Makes a module of a graph, in eval mode.

    Raises:
        InvalidArgument: the graph has operations that PyTorch is not taught here, or inputs that
            are texts; the message names them.
        FailedPrecondition: a weight is not finite, or two do not fit each other.
    """
    return Ported(graph).eval()


def unknown_operations(graph: Graph) -> list[str]:
    """Operations of a graph that cannot be ported, sorted, without the source's prefix."""
    known = OPERATIONS.keys() | _LAYERS
    return sorted({node.op.partition(":")[2] or node.op for node in graph.nodes} - known)


def _check(graph: Graph) -> None:
    unknown = unknown_operations(graph)
    if unknown:
        raise InvalidArgument(
            f"the graph has operations that cannot be ported to PyTorch: {', '.join(unknown)}"
        )
    for name, value in graph.constants.items():
        shown = graph.origins.get(name, name)
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise FailedPrecondition(f"the weight '{shown}' holds NaN")
    for node in graph.nodes:
        if node.op == "batch_norm":
            sizes = {graph.constants[n].size for n in node.inputs[1:] if n in graph.constants}
            if len(sizes) > 1:
                raise FailedPrecondition(f"the statistics of '{node.name}' differ in length")


def _rows(node: Node, graph: Graph) -> bool:
    """Whether a gather takes rows of a table."""
    if len(node.inputs) > 2:
        axis = graph.constants.get(node.inputs[2])
        return axis is not None and int(axis.reshape(-1)[0]) == 0
    return bool(node.attributes["axis"] == 0)


def _rank(values: Mapping[str, Any], node: Node) -> int:
    return int(values[node.inputs[1]].ndim)
