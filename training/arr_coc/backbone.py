"""The detector that stands for the AutoML export: dense, small, frozen once it is trained."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

FEATURES: Final = 128
_WIDTHS: Final = (24, 48, 64, 96)


class Detection(NamedTuple):
    """What a detector says of ``B`` pictures.

    Attributes:
        features: ``[B, FEATURES, GH, GW]``.
        class_logits: ``[B, n_classes, GH, GW]``: a box of the class covers the patch.
        objectness: ``[B, 1, GH, GW]``: a box of any class does.
        offsets: ``[B, 2 * n_classes, GH, GW]``: x, y from the patch's centre to its box's.
    """

    features: Tensor
    class_logits: Tensor
    objectness: Tensor
    offsets: Tensor


class DetectorBackbone(nn.Module):
    """Pictures ``[B, 3, 12·24, 16·24]`` of 0 to 255 to one cell a patch; about 0.6 M weights."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        one, two, three, four = _WIDTHS
        self.n_classes = n_classes
        self.fine = nn.Sequential(
            _conv(3, one, 5, 3), _conv(one, two, 3, 2), _conv(two, three, 3, 2), _Residual(three)
        )
        self.coarse = nn.Sequential(_conv(three, four, 3, 2), _Residual(four), _Residual(four))
        # Platelets are as small as a patch: what the finer grid saw of them is kept beside.
        self.detail = nn.Sequential(nn.PixelUnshuffle(2), _conv(4 * three, 64, 1, 1))
        self.fuse = _conv(four + 64, FEATURES, 1, 1)
        self.heads = nn.Conv2d(FEATURES, 3 * n_classes + 1, 1)
        nn.init.constant_(self.heads.bias, -2.0)  # type: ignore[arg-type]
        nn.init.zeros_(self.heads.bias[n_classes + 1 :])  # type: ignore[index]

    def forward(self, pictures: Tensor) -> Detection:
        """Detects."""
        fine = self.fine(pictures / 127.5 - 1.0)  # [B, 64, 2·GH, 2·GW]
        features = self.fuse(torch.cat([self.coarse(fine), self.detail(fine)], dim=1))
        heads = self.heads(features)
        logits, objectness, offsets = heads.split([self.n_classes, 1, 2 * self.n_classes], dim=1)
        return Detection(features, logits, objectness, offsets)


def freeze(backbone: DetectorBackbone) -> DetectorBackbone:
    """Fixes weights and statistics; returns the same module."""
    return backbone.eval().requires_grad_(False)


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = _conv(channels, channels, 3, 1)
        self.two = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(self.one(x)))
