"""Focal losses: cross-entropy that looks away from what is easy."""

from __future__ import annotations

import torch
from torch.nn import functional


def focal(
    logits: torch.Tensor,
    classes: torch.Tensor,
    *,
    gamma: float = 2.0,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """``-(1 - p)^gamma * log p`` of the right class: Lin et al. 2017, arXiv:1708.02002, eq. 4.

    With ``gamma`` 0 it is the cross-entropy, with ``weights`` and smoothing as PyTorch has them.
    With smoothing, the factor of each row is that of its right class.

    Args:
        logits: [n, classes].
        classes: int64 [n].
        gamma: 0 or more.
        weights: [classes], alpha of the paper; the mean is weighted by them.
        label_smoothing: share of the target that all classes have.
    """
    log_p = functional.log_softmax(logits.float(), dim=-1)  # [n, classes]
    rows = functional.cross_entropy(
        logits.float(), classes, weight=weights, label_smoothing=label_smoothing, reduction="none"
    )  # [n]
    if gamma:
        right = log_p.gather(1, classes[:, None]).squeeze(1)  # [n]
        # 1 - p loses all digits where p is nearly 1; expm1 does not. Its power has an infinite
        # gradient at 0 for gamma < 1.
        rows = rows * (-torch.expm1(right)).clamp_min(1e-12) ** gamma
    if weights is None:
        return rows.mean()
    return rows.sum() / weights[classes].sum()


def binary_focal(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | None = 0.25,
) -> torch.Tensor:
    """The same for labels that do not exclude each other: arXiv:1708.02002, eq. 5.

    Args:
        logits: any shape.
        targets: the same shape, 0 or 1 (or between).
        gamma: 0 or more.
        alpha: weight of 1, ``1 - alpha`` that of 0; ``None`` weighs them alike.
    """
    logits, targets = logits.float(), targets.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = torch.sigmoid(logits) * (1 - targets) + torch.sigmoid(-logits) * targets
    loss = entropy * wrong.clamp_min(1e-12) ** gamma
    if alpha is not None:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.mean()
