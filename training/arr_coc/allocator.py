"""Attending: how many tokens each patch gets; whole numbers whose sum is the budget exactly.

A patch has ``LEVELS[0]`` tokens at least. What may come on top is cut into increments, each with a
cost and a gain; the increments of a picture are taken in the order of their gain a token until
the budget is spent, and of the last one what is left of it. Since a patch's own gains never rise
from one increment to the next, this is the optimum (but for that last part), it is monotone in
the budget and in the relevance, and no patch's place matters; ties go to the earlier patch.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Final

import torch
from torch import Tensor, nn

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.arr_coc.patch_statistics import LEVELS

LEAST: Final = LEVELS[0]
MOST: Final = LEVELS[-1]
FULL: Final = 196  # tokens of a patch in a model without allocation; enough for a relevant one
_COSTS: Final = tuple(high - low for low, high in itertools.pairwise(LEVELS))
_COVERED: Final = LEVELS.index(FULL)  # increments up to FULL


def check_budget(budget: int, patches: int) -> int:
    """Returns the budget of a picture.

    Raises:
        InvalidArgument: no allocation has this sum.
    """
    if not LEAST * patches <= budget <= MOST * patches:
        raise InvalidArgument(
            f"{patches} patches of {LEAST} to {MOST} tokens cannot have {budget} tokens: give"
            f" {LEAST * patches} to {MOST * patches}"
        )
    return budget


@dataclasses.dataclass(frozen=True, slots=True)
class LatencyModel:
    """What reading tokens costs whoever reads them: ``base_ms + ms_per_token * tokens``."""

    base_ms: float
    ms_per_token: float

    def budget(self, latency_ms: float, patches: int) -> int:
        """Returns the largest budget that is read in ``latency_ms``.

        Raises:
            InvalidArgument: even the smallest takes longer.
        """
        affordable = int((latency_ms - self.base_ms) / self.ms_per_token)
        return check_budget(min(affordable, MOST * patches), patches)


def coverage_gains(relevance: Tensor) -> Tensor:
    """Gains a token that make relevant patches reach ``FULL`` first.

    Args:
        relevance: probabilities ``[..., N]``; below 1e-30 they are too small to tell apart.

    Returns:
        ``[..., N, increments]``.
    """
    beyond = [1.0] * _COVERED + [1e-3] * (len(_COSTS) - _COVERED)
    return relevance.unsqueeze(-1) * relevance.new_tensor(beyond)


def quality_gains(relevance: Tensor, log_losses: Tensor) -> Tensor:
    """Gains a token that make the error of relevant patches small.

    Args:
        relevance: probabilities ``[..., N]``; below 1e-30 they are too small to tell apart.
        log_losses: of the squared error at each level, ``[..., N, levels]``.

    Returns:
        ``[..., N, increments]``.
    """
    losses = log_losses.exp()
    slopes = (losses[..., :-1] - losses[..., 1:]).clamp(min=0) / losses.new_tensor(_COSTS)
    falling = [slopes[..., 0]]
    for index in range(1, len(_COSTS)):
        falling.append(torch.minimum(falling[-1], slopes[..., index]))
    return relevance.unsqueeze(-1) * torch.stack(falling, dim=-1)


def allocate(gains: Tensor, budget: Tensor) -> Tensor:
    """Spends a budget.

    Args:
        gains: a token, ``[..., N, increments]``; not rising along the last dimension.
        budget: INT64 ``[...]``; what is less or more than is possible counts as the limit.

    Returns:
        INT64 ``[..., N]``; the sum over ``N`` is the budget.
    """
    patches, increments = gains.shape[-2:]
    costs = torch.tensor(_COSTS, dtype=torch.int64, device=gains.device).repeat(patches)
    flat = gains.flatten(-2)
    if torch.compiler.is_exporting():  # ONNX's TopK is stable; it has no other sort
        order = flat.topk(patches * increments, dim=-1).indices
    else:
        order = flat.sort(dim=-1, descending=True, stable=True).indices
    ordered = costs[order]
    before = ordered.cumsum(dim=-1) - ordered
    left = budget.unsqueeze(-1) - LEAST * patches - before
    taken = torch.minimum(left.clamp(min=0), ordered)
    spent = torch.zeros_like(taken).scatter(-1, order, taken)
    extra: Tensor = spent.unflatten(-1, (patches, increments)).sum(dim=-1)
    return LEAST + extra


def allocate_by_threshold(relevance: Tensor, threshold: Tensor) -> Tensor:
    """Gives ``FULL`` tokens to patches of at least ``threshold`` ``[...]``, ``LEAST`` to others."""
    chosen = relevance >= threshold.unsqueeze(-1)
    return torch.where(chosen, FULL, LEAST).to(torch.int64)


class TokenAllocator(nn.Module):
    """All modes in one graph: a budget for each query, or 0 for the threshold of its recall."""

    def forward(
        self, relevance: Tensor, log_losses: Tensor, threshold: Tensor, budget: Tensor
    ) -> Tensor:
        """Allocates.

        Args:
            relevance: probabilities ``[B, Q, N]``.
            log_losses: ``[B, N, levels]``.
            threshold: ``[B, Q]``.
            budget: INT64 ``[B, Q]``; 0 is no budget.

        Returns:
            INT64 ``[B, Q, N]``.
        """
        gains = quality_gains(relevance, log_losses.unsqueeze(1))
        spent = allocate(gains, budget)
        recalled = allocate_by_threshold(relevance, threshold)
        return torch.where((budget == 0).unsqueeze(-1), recalled, spent)


def soft_tokens(relevance_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Tokens as a smooth function of the logits, for losses: ``LEAST`` to ``MOST``."""
    return LEAST + (MOST - LEAST) * (relevance_logits / temperature).sigmoid()
