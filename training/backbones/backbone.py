"""A backbone: pictures in, feature maps out, in stages of which the first may be frozen."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.training.backbones.cutting import Cut
from crossfade.training.torch_port.layers import Conv
from crossfade.training.torch_port.module import port
from crossfade.training.weights.graph import Graph
from crossfade.training.weights.inventory import digest

RANGES: Final = {"0..255": (0.0, 255.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}


@dataclasses.dataclass(frozen=True, slots=True)
class Pixels:
    """How a picture's bytes become the export's input: ``low + byte / 255 * (high - low)``."""

    low: float
    high: float

    @classmethod
    def of(cls, cut: Cut, range_name: str = "") -> Pixels:
        """Reads them from the export where it says them.

        Args:
            cut: with one input, a picture.
            range_name: one of ``RANGES``, for an export of real numbers, which does not say.

        Raises:
            InvalidArgument: the input is no picture, or its range is known nowhere.
        """
        if len(cut.graph.inputs) != 1:
            raise InvalidArgument("a backbone of pictures has one input")
        (entry,) = cut.graph.inputs.values()
        if entry.shape is None or len(entry.shape) != 4:
            raise InvalidArgument("the export's input is no picture")
        if range_name:
            if range_name not in RANGES:
                raise InvalidArgument(f"a range of pixels is one of {', '.join(RANGES)}")
            return cls(*RANGES[range_name])
        if entry.quantization is not None:
            scale, zero = entry.quantization
            return cls((0 - zero) * scale, (255 - zero) * scale)
        if entry.dtype == "uint8":
            return cls(0.0, 255.0)
        raise InvalidArgument(
            "the export takes real numbers and does not say which: set 'pixels' in the"
            f" configuration to the range of its pixels, {', '.join(RANGES)}"
        )


class Backbone(nn.Module):
    """Pictures, uint8 [n, channels, height, width], to features [n, c, h, w] (or rows [n, c]).

    Stages end where the maps get smaller, so each is one resolution. Frozen ones have no
    gradients, and their batch normalisations stay in eval, whatever ``train`` is told; those of
    stages that train keep their statistics too, unless ``moving_statistics``. An export of 8 bits
    is computed without their rounding.

    Attributes:
        stages: names of layers, from the picture to the features.
    """

    def __init__(self, cut: Cut, pixels: Pixels, *, moving_statistics: bool = False) -> None:
        """Ports the graph, frozen as a whole; raises as ``port``."""
        super().__init__()
        self.net = port(_unrounded(cut.graph))
        self.pixels = pixels
        self.moving_statistics = moving_statistics
        (self._entry,) = cut.graph.inputs.values()
        shape = self._entry.shape or ()
        self._first = len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)
        self._layout = cut.layout
        self._finer = _finer_maps(self.net)
        self.stages = tuple(_stages(self.net))
        self._open = 0
        self.unfreeze(0)

    @property
    def channels(self) -> int:
        """Of the pictures."""
        assert self._entry.shape is not None
        return self._entry.shape[1 if self._first else 3]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pictures where the export fixes both."""
        height, width = self._sides()
        return (height, width) if min(height, width) > 0 else None

    @property
    def side(self) -> int | None:
        """Height of the pictures where the export fixes it.

        Raises:
            InvalidArgument: they are not square.
        """
        height, width = self._sides()
        if height != width:
            raise InvalidArgument(f"the export takes pictures of {height} x {width}, not square")
        return height if height > 0 else None

    def forward(self, image: Tensor) -> Tensor:
        """The features of pictures."""
        return self.maps(image, 1)[0]

    def maps(self, image: Tensor, count: int) -> list[Tensor]:
        """The features, and the finer maps in front of them, the finest first.

        Args:
            image: as ``forward`` takes it.
            count: how many at most. The last are the features; those before are what the last
                layers with a stride read.

        Returns:
            FP32 [n, c, h, w] each.
        """
        (features,) = self.net.graph.outputs.values()
        finer = self._finer[max(len(self._finer) - count + 1, 0) :]
        x = self.pixels.low + image.float() * ((self.pixels.high - self.pixels.low) / 255)
        values = self.net.run(
            (x if self._first else x.permute(0, 2, 3, 1),), [tensor for tensor, _ in finer]
        )
        return [
            values[tensor].permute(0, 3, 1, 2) if layout == "NHWC" else values[tensor]
            for tensor, layout in (*finer, (features, self._layout))
        ]

    def unfreeze(self, count: int) -> None:
        """Lets the last ``count`` stages train, and freezes all before them.

        Raises:
            InvalidArgument: there are fewer.
        """
        if not 0 <= count <= len(self.stages):
            raise InvalidArgument(f"the backbone has {len(self.stages)} stages, not {count}")
        self._open = count
        for parameter in self.net.parameters():
            parameter.requires_grad_(False)
        for layer in self._open_layers():
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Puts the layers of open stages into training mode, never frozen ones."""
        super().train(mode)
        self.net.eval()
        if mode:
            for layer in self._open_layers():
                if self.moving_statistics or not isinstance(layer, _BatchNorm):
                    layer.train()
        return self

    def rates(self, rate: float, decay: float) -> list[dict[str, Any]]:
        """Groups of parameters of the open stages, with rates that fall towards the picture."""
        groups = []
        for distance, names in enumerate(reversed(self.stages[len(self.stages) - self._open :])):
            found = [p for name in names for p in self.net.layers[name].parameters()]
            if found:
                groups.append({"params": found, "lr": rate * decay**distance})
        return groups

    def digest(self) -> str:
        """SHA-256 of weights, statistics, steps and what is done to pixels."""
        steps = [(step.node.op, step.inputs, step.node.attributes) for step in self.net.steps]
        total = hashlib.sha256(repr((self.pixels, self._layout, steps)).encode())
        for name, value in sorted(self.net.state_dict().items()):
            total.update(name.encode() + digest(value.detach().cpu().numpy()).encode())
        return total.hexdigest()

    def _sides(self) -> tuple[int, int]:
        """Height and width of the pictures; below 1 where the export leaves one open."""
        assert self._entry.shape is not None
        height, width = self._entry.shape[2:] if self._first else self._entry.shape[1:3]
        return height, width

    def _open_layers(self) -> Iterator[nn.Module]:
        for names in self.stages[len(self.stages) - self._open :]:
            for name in names:
                yield self.net.layers[name]


def _unrounded(graph: Graph) -> Graph:
    """Values between the steps of a grid are kept; its ends stay, as they are an activation.

    Rounding would turn the last bit that two libraries differ in into whole steps.
    """
    nodes = [
        dataclasses.replace(node, op="clip", attributes=_ends(node.attributes))
        if node.op == "quantized"
        else node
        for node in graph.nodes
    ]
    return dataclasses.replace(graph, nodes=tuple(nodes))


def _ends(grid: Mapping[str, float]) -> dict[str, float]:
    return {end: grid[end] * grid["scale"] for end in ("low", "high")}


def _stages(net: Any) -> Iterator[tuple[str, ...]]:
    """Layers in the order of computing, parted in front of each convolution with a stride."""
    stage: list[str] = []
    for step in net.steps:
        if not step.layer:
            continue
        layer = net.layers[step.layer]
        if isinstance(layer, Conv) and max(layer.strides) > 1 and stage:
            yield tuple(stage)
            stage = []
        stage.append(step.layer)
    if stage:
        yield tuple(stage)


def _finer_maps(net: Any) -> list[tuple[str, str]]:
    """The last map of each resolution that a layer with a stride reads, and its layout.

    The finest is first; the picture itself is left out, and so are margins.
    """
    scales = {entry.tensor: 1 for entry in net.graph.inputs.values()}  # pixels to one of the map
    inside: dict[str, str] = {}
    found: dict[int, tuple[str, str]] = {}
    for node in (step.node for step in net.steps):
        scale = max((scales.get(name, 1) for name in node.inputs), default=1)
        stride = max(node.attributes.get("strides", (1,)))
        if stride > 1 and scale > 1:
            found[scale] = (inside.get(node.inputs[0], node.inputs[0]), node.attributes["layout"])
        if node.op == "pad":
            inside[node.outputs[0]] = node.inputs[0]
        scales.update(dict.fromkeys(node.outputs, scale * stride))
    return [found[scale] for scale in sorted(found)]


def require_finite(features: Tensor) -> Tensor:
    """The features; raises FailedPrecondition where one is NaN or infinite."""
    if not bool(torch.isfinite(features).all()):
        raise FailedPrecondition(
            "the backbone's features are not finite: is the range of its pixels right?"
        )
    return features
