"""Layers with weights, which compute as TensorFlow does on tensors in the export's own layout.

A picture in NHWC is turned to NCHW as a view: PyTorch then works in its channels_last format, and
nothing is copied.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from crossfade.training.weights.graph import Padding

# Keras' momentum 0.99 in PyTorch's sense; a graph for inference does not hold it.
BN_MOMENTUM = 0.01


def to_nchw(x: Tensor, layout: str) -> Tensor:
    """A view of pictures with channels first."""
    return x.permute(0, 3, 1, 2) if layout == "NHWC" else x


def from_nchw(x: Tensor, layout: str) -> Tensor:
    """The reverse of ``to_nchw``."""
    return x.permute(0, 2, 3, 1) if layout == "NHWC" else x


def same_padding(
    size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], dilations: Any
) -> Padding:
    """TensorFlow's SAME: as many outputs as steps fit, the odd pixel behind."""
    sides = []
    for length, k, step, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-length // step) - 1) * step + (k - 1) * dilation + 1 - length, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def window_padding(
    padding: Any, size: Any, kernel: Any, strides: tuple[int, int], dilations: Any
) -> Padding:
    """Any kind of padding in pixels."""
    if padding == "SAME":
        return same_padding(tuple(size), tuple(kernel), strides, dilations)
    if padding == "SAME_LOWER":
        top, left = same_padding(tuple(size), tuple(kernel), strides, dilations)
        return top[::-1], left[::-1]
    return ((0, 0), (0, 0)) if padding == "VALID" else padding


def padded(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    """Pictures [N, C, H, W] with a margin."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    return functional.pad(x, (left, right, top, bottom), value=value)


class Conv(nn.Module):
    """A convolution, depthwise or not.

    Attributes:
        weight: [out, in / groups, height, width].
        padding: "SAME", "VALID" or pixels.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, attributes: Any) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.strides: tuple[int, int] = attributes["strides"]
        self.dilations: tuple[int, int] = attributes["dilations"]
        self.padding: Any = attributes["padding"]
        self.layout: str = attributes["layout"]

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] or [N, C, H, W], as the export has it, in and out."""
        x = to_nchw(x, self.layout)
        kernel = self.weight.shape[2:]
        pixels = window_padding(self.padding, x.shape[2:], kernel, self.strides, self.dilations)
        (top, bottom), (left, right) = pixels
        inside = (top, left) if (top, left) == (bottom, right) else (0, 0)
        if inside == (0, 0):
            x = padded(x, pixels)
        groups = x.shape[1] // self.weight.shape[1]
        x = functional.conv2d(
            x, self.weight, self.bias, self.strides, inside, self.dilations, groups
        )
        return from_nchw(x, self.layout)


class Dense(nn.Linear):
    """A fully connected layer: [..., in] to [..., out]."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__(1, 1, device="meta")
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.bias = bias  # type: ignore[assignment]  # nn.Linear without a bias has None, too


class BatchNorm(nn.BatchNorm2d):
    """A batch normalisation with its running statistics, of pictures or of rows."""

    def __init__(self, channels: int, epsilon: float, layout: str) -> None:
        super().__init__(channels, eps=epsilon, momentum=BN_MOMENTUM)
        self.layout = layout

    def forward(self, input: Tensor) -> Tensor:
        """[N, C], or [N, H, W, C] or [N, C, H, W] as the export has it, in and out."""
        if input.ndim == 4:
            return from_nchw(super().forward(to_nchw(input, self.layout)), self.layout)
        rows = input.reshape(-1, input.shape[-1], 1, 1)
        return super().forward(rows).reshape(input.shape)


class Embedding(nn.Embedding):
    """A row for each number."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__(weight.shape[0], weight.shape[1], _weight=weight)
        self.weight = weight

    def forward(self, input: Tensor) -> Tensor:
        """Integers [...] to [..., dimension]."""
        return super().forward(input.long())
