"""Losses of orders: of pairs, and of whole lists."""

from __future__ import annotations

import torch
from torch.nn import functional


def margin_ranking(
    scores: torch.Tensor,
    relevance: torch.Tensor,
    *,
    margin: float = 1.0,
    groups: torch.Tensor | None = None,
) -> torch.Tensor:
    """``max(0, margin - (s_i - s_j))`` of all pairs in which i is more relevant than j.

    The hinge of RankSVM (Herbrich et al. 2000; Joachims 2002); the mean over the pairs, 0 without
    any.

    Args:
        scores: [n].
        relevance: [n], larger is better; equal ones are no pair.
        margin: above 0.
        groups: [n], the query of each row; rows of different ones are no pair.
    """
    better = relevance[:, None] > relevance[None, :]  # [i, j]
    if groups is not None:
        better = better & (groups[:, None] == groups[None, :])
    if not bool(better.any()):
        return scores.sum() * 0
    return functional.relu(margin - (scores[:, None] - scores[None, :]))[better].mean()


def list_net(
    scores: torch.Tensor, relevance: torch.Tensor, *, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of the chances to be first: ListNet, Cao et al. 2007, top-one probabilities.

    Args:
        scores: [lists, n].
        relevance: [lists, n].
        present: bool [lists, n], where lists are of different lengths; each has at least one.
    """
    if present is None:
        present = torch.ones_like(scores, dtype=torch.bool)
    wanted = torch.softmax(relevance.to(scores.dtype).masked_fill(~present, -torch.inf), 1)
    log_p = torch.log_softmax(scores.masked_fill(~present, -torch.inf), 1)
    return -(wanted * log_p.masked_fill(~present, 0)).sum(1).mean()


def list_mle(
    scores: torch.Tensor, relevance: torch.Tensor, *, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Minus the logarithm of the Plackett-Luce chance of the right order: Xia et al. 2008.

    Rows that are equally relevant are taken in the order of their scores, the best first, so that
    the order they are given in does not matter.

    Args:
        scores: [lists, n].
        relevance: [lists, n].
        present: bool [lists, n], where lists are of different lengths.
    """
    if present is None:
        present = torch.ones_like(scores, dtype=torch.bool)
    low = torch.finfo(scores.dtype).min
    by_score = (
        scores.detach().masked_fill(~present, low).argsort(dim=1, descending=True, stable=True)
    )
    ranked = relevance.to(torch.float64).masked_fill(~present, -torch.inf).gather(1, by_score)
    order = by_score.gather(1, ranked.argsort(dim=1, descending=True, stable=True))
    ordered, there = scores.gather(1, order), present.gather(1, order)
    # Of those that are left at each place, the absent ones at the end included as nothing.
    kept = ordered.masked_fill(~there, low)
    left = kept.flip(1).logcumsumexp(1).flip(1)
    return ((left - ordered) * there).sum(1).mean()
