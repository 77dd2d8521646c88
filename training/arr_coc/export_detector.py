"""A detector that begins with an export: its layers frozen, a neck and heads trained on them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossfade.training.arr_coc.backbone import (
    FEATURES,
    Detection,
    DetectionHeads,
    Detector,
    conv,
)
from crossfade.training.arr_coc.geometry import GRID_HEIGHT, GRID_WIDTH, INPUT_HEIGHT, INPUT_WIDTH
from crossfade.training.backbones.backbone import Backbone

_MAPS: Final = 3  # resolutions of the export that are looked at
_WIDTH: Final = 48  # channels of each
_FINE: Final = 2  # cells of the neck's grid in a row of a patch, so that small things are kept


class ExportDetector(Detector):
    """An export of pictures of any kind, whose last maps are read patch by patch.

    Pictures come in the size of ``DetectorBackbone`` and are resized where the export fixes
    another. The maps of three resolutions are brought to one grid; what small things need is in
    the finest of them.

    Args:
        export: frozen as a whole.
        n_classes: that are detected.
    """

    def __init__(self, export: Backbone, n_classes: int) -> None:
        super().__init__(n_classes)
        self.export = export
        with torch.no_grad():
            maps = self._maps(torch.zeros(1, 3, INPUT_HEIGHT, INPUT_WIDTH))
        self.reduce = nn.ModuleList(conv(found.shape[1], _WIDTH, 1, 1) for found in maps)
        self.fuse = nn.Sequential(
            conv(_FINE * _FINE * _WIDTH * len(maps), FEATURES, 1, 1), conv(FEATURES, FEATURES, 3, 1)
        )
        self.heads = DetectionHeads(n_classes)

    def forward(self, pictures: Tensor) -> Detection:
        """Detects."""
        grid = (GRID_HEIGHT * _FINE, GRID_WIDTH * _FINE)
        parts = [
            functional.interpolate(reduce(found), grid, mode="bilinear")
            for reduce, found in zip(self.reduce, self._maps(pictures), strict=True)
        ]
        cells = functional.pixel_unshuffle(torch.cat(parts, dim=1), _FINE)
        return self.heads.detect(self.fuse(cells))

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        size = self.export.size
        if size is not None and size != tuple(pictures.shape[2:]):
            pictures = functional.interpolate(pictures, size, mode="bilinear")
        if self.export.channels == 1:
            pictures = pictures.mean(dim=1, keepdim=True)
        return self.export.maps(pictures, _MAPS)
