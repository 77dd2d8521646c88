"""One loss of several tasks, with weights that are given or learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from crossfade.runtimes.core.errors import InvalidArgument


def weighted(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """The sum of the losses, each times its weight.

    Raises:
        InvalidArgument: the tasks of both are not the same.
    """
    if losses.keys() != weights.keys():
        odd = ", ".join(sorted(losses.keys() ^ weights.keys()))
        raise InvalidArgument(f"these tasks have a loss or a weight, and not both: {odd}")
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


class Uncertainty(nn.Module):
    """Weights that are learned along: Kendall, Gal and Cipolla 2018, arXiv:1705.07115.

    ``sum_i(exp(-s_i) * L_i / c_i + s_i / 2)`` with a parameter ``s_i = log sigma_i^2`` for each
    task; ``c_i`` is 2 for a squared error and 1 for a cross-entropy.
    """

    def __init__(self, classification: Sequence[str] = (), regression: Sequence[str] = ()) -> None:
        """The names of the tasks.

        Raises:
            InvalidArgument: there is none, or one twice.
        """
        super().__init__()
        names = (*classification, *regression)
        if not names or len(set(names)) < len(names):
            raise InvalidArgument("name at least one task, and each once")
        self._names = names
        self._halves = dict.fromkeys(classification, 1.0) | dict.fromkeys(regression, 0.5)
        self.log_variance = nn.Parameter(torch.zeros(len(names)))  # in the order of the names

    def forward(self, losses: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum of one loss for each task."""
        if losses.keys() != set(self._names):
            odd = ", ".join(sorted(losses.keys() ^ set(self._names)))
            raise InvalidArgument(f"these tasks were named or have a loss, and not both: {odd}")
        parts = [
            torch.exp(-s) * self._halves[name] * losses[name] + s / 2
            for name, s in zip(self._names, self.log_variance, strict=True)
        ]
        return torch.stack(parts).sum()
