"""What a patch's pixels say without any training: entropy, edges, and loss when it shrinks."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossfade.training.arr_coc.geometry import CELL

LEVELS: Final = (64, 100, 196, 256, 400)  # tokens that a patch may have, as squares of samples
STATISTICS: Final = 2 + len(LEVELS)
_BINS: Final = 16
_FLOOR: Final = 1e-2  # grey levels squared: less is the noise of rounding


def resampling(samples: int, pixels: int) -> Tensor:
    """Returns ``[pixels, pixels]``: shrinks a row to fewer samples by area, and grows it again."""
    edges = torch.arange(samples + 1, dtype=torch.float64) * pixels / samples
    pixel = torch.arange(pixels, dtype=torch.float64)[None]
    shares = torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)
    shares = shares.clamp(min=0)
    small = shares / shares.sum(dim=1, keepdim=True)  # [samples, pixels]
    return functional.interpolate(small.T[:, None], pixels, mode="linear")[:, 0].T


class PatchStatistics(nn.Module):
    """Pictures ``[B, 3, GH·24, GW·24]`` of 0 to 255 to ``[B, STATISTICS, GH, GW]``; no weights.

    The channels: entropy of the grey levels (0 to 1), log of the edge energy, and for each of
    ``LEVELS`` the log of the squared error when the patch is stored as so many samples.
    """

    def __init__(self) -> None:
        super().__init__()
        sides = [int(level**0.5) for level in LEVELS]
        matrices = torch.stack([resampling(side, CELL) for side in sides]).float()
        self.register_buffer("residual", matrices, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Measures."""
        grey = (pictures * pictures.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1)
        batch, height, width = grey.shape
        cells = grey.reshape(batch, height // CELL, CELL, width // CELL, CELL).transpose(2, 3)
        entropy = _entropy(cells)
        dx = (cells[..., :, 1:] - cells[..., :, :-1]).square().mean(dim=(-2, -1))
        dy = (cells[..., 1:, :] - cells[..., :-1, :]).square().mean(dim=(-2, -1))
        edges = torch.log(dx + dy + 1.0)
        losses = []
        for index in range(len(LEVELS)):
            matrix = self.residual[index]  # type: ignore[index]
            restored = matrix @ cells @ matrix.T
            losses.append(torch.log((cells - restored).square().mean(dim=(-2, -1)) + _FLOOR))
        return torch.stack([entropy, edges, *losses], dim=1)


def _entropy(cells: Tensor) -> Tensor:
    """Returns the entropy of the histogram of ``_BINS`` grey levels, as part of its maximum."""
    level = (cells / (256 / _BINS)).clamp(0, _BINS - 1).floor()
    total = torch.zeros_like(cells[..., 0, 0])
    for bin_number in range(_BINS):
        share = (level == bin_number).to(cells.dtype).mean(dim=(-2, -1))
        total = total - share * torch.log(share.clamp(min=1e-12))
    return total / torch.log(torch.tensor(float(_BINS)))
