"""The network: pixels in, one logit for each class out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from crossfade.training.image_classifier.config import Network


class Classifier(nn.Module):
    """Features, then one linear layer.

    Attributes:
        backbone: uint8 [n, channels, size, size] to [n, features]; another may take its place.
        head: dropout and the linear layer.
    """

    def __init__(self, backbone: nn.Module, features: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes] of uint8 [n, channels, size, size]."""
        logits: torch.Tensor = self.head(self.backbone(image))
        return logits


class Served(nn.Module):
    """What is written for the server: softmax scores [n, classes] of the same input."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self._classifier = classifier

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores that add up to 1."""
        return torch.softmax(self._classifier(image).float(), dim=-1)


class PlainBackbone(nn.Module):
    """Stages of two 3x3 convolutions, each with BatchNorm, and a pooling; then the mean."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for width in widths:
            for _ in range(2):
                layers += [
                    nn.Conv2d(before, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features [n, widths[-1]] of uint8 [n, channels, size, size]."""
        centred = image.float() / 127.5 - 1  # [n, channels, size, size] in [-1, 1]
        features: torch.Tensor = self.layers(centred).mean(dim=(2, 3))
        return features


def build(config: Network, channels: int, classes: int) -> Classifier:
    """A network with fresh weights, drawn from torch's generator."""
    backbone = PlainBackbone(channels, config.widths)
    return Classifier(backbone, config.widths[-1], classes, config.dropout)
