"""How much of a patch is lost when it is stored as fewer samples, measured on real pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from crossfade.training.arr_coc.geometry import GRID_HEIGHT, GRID_WIDTH
from crossfade.training.arr_coc.patch_statistics import LEVELS, resampling
from crossfade.training.detection.pictures import decode

SOURCE_CELL: Final = 40  # pixels of the original that a patch stands for


def originals(paths: Sequence[Path]) -> np.ndarray:
    """Decodes at ``SOURCE_CELL`` pixels a patch: UINT8 ``[n, GH·40, GW·40, 3]``."""
    return decode(paths, GRID_HEIGHT * SOURCE_CELL, GRID_WIDTH * SOURCE_CELL)


def squared_errors(pixels: np.ndarray, tokens: Sequence[int] = LEVELS) -> np.ndarray:
    """Measures.

    Args:
        pixels: of ``originals``.
        tokens: squares: each side's number of samples is the root.

    Returns:
        FP32 ``[n, N, len(tokens)]``: the mean squared error of a colour value, 0 to 255².
    """
    out = []
    for picture in pixels:
        cells = torch.from_numpy(picture).float().permute(2, 0, 1)  # [3, GH·40, GW·40]
        cells = cells.unflatten(2, (GRID_WIDTH, SOURCE_CELL)).unflatten(
            1, (GRID_HEIGHT, SOURCE_CELL)
        )  # [3, GH, 40, GW, 40]
        cells = cells.permute(1, 3, 0, 2, 4).flatten(0, 1)  # [N, 3, 40, 40]
        out.append(torch.stack([_error(cells, int(t**0.5)) for t in tokens], dim=-1))
    return torch.stack(out).numpy()


def _error(cells: Tensor, samples: int) -> Tensor:
    matrix = resampling(samples, SOURCE_CELL).float()
    restored = (matrix @ cells @ matrix.T).clamp(0, 255)
    return (cells - restored).square().mean(dim=(1, 2, 3))
