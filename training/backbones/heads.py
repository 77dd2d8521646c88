"""What stands on a backbone and gives the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import pydantic
import torch
from torch import Tensor, nn

from crossfade.training.core.config import Config
from crossfade.training.core.optimise import Count


class Head(Config):
    """Global average pooling, dense layers with ReLU and dropout, and one logit for each class.

    Attributes:
        widths: of the dense layers; none is a linear probe.
        dropout: after each of them, or in front of the last layer of a linear probe.
    """

    widths: Annotated[tuple[Count, ...], pydantic.Field(max_length=4)] = (512,)
    dropout: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.3


def pooled(features: Tensor) -> Tensor:
    """Global average pooling: [n, c, h, w] to [n, c]; rows stay rows."""
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def build(config: Head, features: int, classes: int) -> nn.Sequential:
    """Rows [n, features] to logits [n, classes], with fresh weights of torch's generator."""
    layers: list[nn.Module] = []
    before = features
    for width in config.widths:
        layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(config.dropout)]
        before = width
    if not config.widths:
        layers.append(nn.Dropout(config.dropout))
    return nn.Sequential(*layers, nn.Linear(before, classes))


class WarmClassifier(nn.Module):
    """Backbone, pooling, head: uint8 [n, channels, height, width] to logits [n, classes]."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        """``head`` takes rows of pooled features; any module will do."""
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(pooled(self.backbone(image)))
        return logits


@torch.no_grad()
def pooled_in_batches(backbone: nn.Module, pictures: Sequence[Tensor], batch: int = 32) -> Tensor:
    """Pooled features of pictures, [n, c]."""
    rows = [
        pooled(backbone(torch.stack(list(pictures[i : i + batch]))))
        for i in range(0, len(pictures), batch)
    ]
    return torch.cat(rows)
