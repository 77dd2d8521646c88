"""Balancing: three tensions between what the scorers say."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tensions(NamedTuple):
    """``[B, Q]`` each, in (0, 1)."""

    compress: Tensor
    explore: Tensor
    diversify: Tensor


class TensionBalancer(nn.Module):
    """Makes one relevance of information, salience and coupling.

    Particularize or compress: the coupling of a patch, or that of its surroundings. Exploit or
    explore: what stands out, or what is rich and does not. Focus or diversify: how far relevant
    patches are set apart from the others. All three start near "off", so that an untrained
    balancer passes the coupling on.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gates = nn.Sequential(nn.Linear(24 + width, 64), nn.ReLU(), nn.Linear(64, 3))
        nn.init.constant_(self.gates[2].bias, -2.0)  # type: ignore[arg-type]
        self.weights = nn.Parameter(torch.tensor([1.0, 0.1, 0.1]))
        self.sharpness = nn.Parameter(torch.zeros(()))

    def forward(
        self, information: Tensor, salience: Tensor, coupling: Tensor, query: Tensor, width: int
    ) -> tuple[Tensor, Tensions]:
        """Balances.

        Args:
            information: ``[B, N]`` in (0, 1).
            salience: the same.
            coupling: logits ``[B, Q, N]``.
            query: ``[B, Q, d]``.
            width: of the grid; ``N`` is a multiple of it.

        Returns:
            Relevance logits ``[B, Q, N]`` and the tensions.
        """
        i = information.unsqueeze(1).expand_as(coupling)
        s = salience.unsqueeze(1).expand_as(coupling)
        maps = torch.stack([i, s, coupling.sigmoid()], dim=2).unflatten(-1, (-1, width))
        halves = (maps.shape[-2] // 2, maps.shape[-1] // 2)
        flat = maps.flatten(0, 1)  # [B·Q, 3, GH, GW]
        layout = torch.cat(
            [functional.avg_pool2d(flat, halves), functional.max_pool2d(flat, halves)], dim=1
        )
        layout = layout.flatten(1).unflatten(0, coupling.shape[:2])  # [B, Q, 24]
        gates = self.gates(torch.cat([layout, query], dim=-1)).sigmoid()
        compress, explore, diversify = (gate.unsqueeze(-1) for gate in gates.unbind(dim=-1))
        grid = coupling.unflatten(-1, (-1, width))
        around = functional.avg_pool2d(grid, 3, 1, 1, count_include_pad=False).flatten(2)
        first = (1 - compress) * coupling + compress * around
        second = (1 - explore) * s + explore * i * (1 - s)
        w = self.weights
        mixed = w[0] * first + w[1] * (second - 0.5) + w[2] * (i - 0.5)
        middle = mixed.mean(dim=-1, keepdim=True)
        sharp = (1 - 0.5 * diversify) * self.sharpness.exp()
        return (mixed - middle) * sharp + middle, Tensions(*gates.unbind(dim=-1))
