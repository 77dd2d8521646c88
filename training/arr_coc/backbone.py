"""Detectors: what is frozen once it is trained, and the small dense one that needs no export."""

from __future__ import annotations

import abc
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


class Detector(nn.Module, abc.ABC):
    """Pictures FP32 ``[B, 3, 12·24, 16·24]`` of 0 to 255 to one cell a patch."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes

    @abc.abstractmethod
    def forward(self, pictures: Tensor) -> Detection:
        """Detects."""


class DetectionHeads(nn.Conv2d):
    """Features ``[B, FEATURES, GH, GW]`` to what is said of each patch."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(FEATURES, 3 * n_classes + 1, 1)
        self.parts = [n_classes, 1, 2 * n_classes]
        assert self.bias is not None
        nn.init.constant_(self.bias, -2.0)
        nn.init.zeros_(self.bias[n_classes + 1 :])

    def detect(self, features: Tensor) -> Detection:
        """Detects."""
        return Detection(features, *self(features).split(self.parts, dim=1))


class DetectorBackbone(Detector):
    """The one that needs no export; about 0.6 M weights."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(n_classes)
        one, two, three, four = _WIDTHS
        self.fine = nn.Sequential(
            conv(3, one, 5, 3), conv(one, two, 3, 2), conv(two, three, 3, 2), _Residual(three)
        )
        self.coarse = nn.Sequential(conv(three, four, 3, 2), _Residual(four), _Residual(four))
        # Platelets are as small as a patch: what the finer grid saw of them is kept beside.
        self.detail = nn.Sequential(nn.PixelUnshuffle(2), conv(4 * three, 64, 1, 1))
        self.fuse = conv(four + 64, FEATURES, 1, 1)
        self.heads = DetectionHeads(n_classes)

    def forward(self, pictures: Tensor) -> Detection:
        """Detects."""
        fine = self.fine(pictures / 127.5 - 1.0)  # [B, 64, 2·GH, 2·GW]
        return self.heads.detect(
            self.fuse(torch.cat([self.coarse(fine), self.detail(fine)], dim=1))
        )


def freeze(backbone: Detector) -> Detector:
    """Fixes weights and statistics; returns the same module."""
    return backbone.eval().requires_grad_(False)


def conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = conv(channels, channels, 3, 1)
        self.two = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(self.one(x)))
