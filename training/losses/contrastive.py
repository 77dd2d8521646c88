"""Losses of embeddings: what belongs together comes together."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Mining = Literal["all", "hard", "semi_hard"]


def nt_xent(first: torch.Tensor, second: torch.Tensor, *, temperature: float = 0.5) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy: SimCLR, Chen et al. 2020, arXiv:2002.05709.

    Row i of both is a view of the same example; each of the ``2n`` rows finds its partner among
    the others by cosine similarity.

    Args:
        first: [n, d].
        second: [n, d].
        temperature: above 0.
    """
    count = len(first)
    similar = _cosines(torch.cat([first, second])) / temperature  # [2n, 2n]
    similar.fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * count, device=first.device).roll(count)
    return functional.cross_entropy(similar, partners)


def supervised_contrastive(
    embeddings: torch.Tensor, classes: torch.Tensor, *, temperature: float = 0.1
) -> torch.Tensor:
    """SupCon: Khosla et al. 2020, arXiv:2004.11362, eq. 2 (the sum outside of the logarithm).

    Rows that share their class with no other do not count; without any that does, it is 0.

    Args:
        embeddings: [n, d].
        classes: [n].
        temperature: above 0.
    """
    similar = _cosines(embeddings) / temperature  # [n, n]
    itself = torch.eye(len(similar), dtype=torch.bool, device=similar.device)
    positive = (classes[:, None] == classes[None, :]) & ~itself
    log_p = similar - similar.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    counts = positive.sum(1)
    means = (log_p * positive).sum(1)[counts > 0] / counts[counts > 0]
    return -means.mean() if len(means) else embeddings.sum() * 0


def triplet(
    embeddings: torch.Tensor,
    classes: torch.Tensor,
    *,
    margin: float = 0.2,
    mining: Mining = "semi_hard",
) -> torch.Tensor:
    """``max(0, d(anchor, positive) - d(anchor, negative) + margin)`` of triplets of the batch.

    FaceNet (Schroff et al. 2015, arXiv:1503.03832) with the mining of Hermans et al. 2017
    (arXiv:1703.07737); distances are Euclidean.

    Args:
        embeddings: [n, d]; normalise them where that is wanted.
        classes: [n].
        margin: above 0.
        mining: ``all`` is the mean over all triplets that cost something; ``hard`` takes each
            anchor's farthest positive and nearest negative; ``semi_hard`` takes for each pair the
            nearest negative that is farther than the positive, or the farthest there is. Without
            a triplet the loss is 0.
    """
    distances = _distances(embeddings)  # [n, n]
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    same = classes[:, None] == classes[None, :]
    positive, negative = same & ~itself, ~same
    nothing = embeddings.sum() * 0
    if mining == "hard":
        usable = positive.any(1) & negative.any(1)
        if not bool(usable.any()):
            return nothing
        farthest = distances.masked_fill(~positive, -torch.inf).amax(1)
        nearest = distances.masked_fill(~negative, torch.inf).amin(1)
        return functional.relu(farthest - nearest + margin)[usable].mean()
    triplets = positive[:, :, None] & negative[:, None, :]  # [anchor, positive, negative]
    if not bool(triplets.any()):
        return nothing
    if mining == "all":
        losses = functional.relu(distances[:, :, None] - distances[:, None, :] + margin)[triplets]
        costly = losses > 0
        return losses[costly].mean() if bool(costly.any()) else nothing
    pairs = triplets.any(2)
    farther = triplets & (distances[:, None, :] > distances[:, :, None])
    wide = distances[:, None, :].expand_as(triplets)
    nearest = wide.masked_fill(~farther, torch.inf).amin(2)
    farthest = wide.masked_fill(~triplets, -torch.inf).amax(2)
    chosen = torch.where(farther.any(2), nearest, farthest)
    return functional.relu(distances - chosen + margin)[pairs].mean()


def _cosines(embeddings: torch.Tensor) -> torch.Tensor:
    unit = functional.normalize(embeddings.float(), dim=1, eps=1e-8)
    return unit @ unit.T


def _distances(embeddings: torch.Tensor) -> torch.Tensor:
    """Euclidean; the root has no gradient at 0, so that equal rows have none and not NaN."""
    wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    squares = (wide[:, None, :] - wide[None, :, :]).square().sum(2)
    apart = squares > 0
    return torch.where(apart, squares.where(apart, torch.ones_like(squares)).sqrt(), squares)
