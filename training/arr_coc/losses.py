"""What the heads are trained on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from crossfade.training.arr_coc.allocator import FULL, soft_tokens
from crossfade.training.arr_coc.balancer import Tensions


def relevance_loss(logits: Tensor, relevant: Tensor) -> Tensor:
    """Focal cross-entropy, covered tokens and a margin to the hard negatives.

    Args:
        logits: ``[B, Q, N]``.
        relevant: FP32 ``[B, Q, N]``, 0 or 1.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, relevant, reduction="none")
    focus = (logits.sigmoid() - relevant).abs()  # gamma 1
    weight = 0.4 + 0.2 * relevant
    # A query with few relevant patches would vanish among the others; damped, as in the detector.
    share = relevant.mean(dim=(0, 2), keepdim=True).clamp(min=0.004)
    focal = (weight * focus * entropy * share**-0.5).mean()

    count = relevant.sum(dim=-1).clamp(min=1)
    enough = (soft_tokens(logits) / FULL).clamp(max=1)
    covered = ((1 - enough) * relevant).sum(dim=-1) / count

    others = torch.logsumexp(logits.masked_fill(relevant > 0, -1e4), dim=-1, keepdim=True)
    others = others - (1 - relevant).sum(dim=-1, keepdim=True).clamp(min=1).log()
    margin = (functional.softplus(others - logits + 0.5) * relevant).sum(dim=-1) / count
    asked = (relevant.sum(dim=-1) > 0).float()
    n_asked = asked.sum().clamp(min=1)
    return 2 * focal + 0.1 * covered.sum() / n_asked + 0.05 * (margin * asked).sum() / n_asked


def tension_spread(tensions: Tensions) -> Tensor:
    """Low where each tension takes all values over a batch, so that none collapses.

    The tensions of a batch, sorted, are compared with evenly spread ones.
    """
    total = torch.zeros(())
    for gate in tensions:
        values = gate.flatten().sort().values
        wanted = torch.linspace(0, 1, len(values)) ** 2
        total = total + (values - wanted).square().mean()
    return total
