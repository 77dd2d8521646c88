"""Knowing: what a patch holds, whether it stands out, and whether it is what the query means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossfade.training.arr_coc.patch_statistics import LEVELS, STATISTICS
from crossfade.training.arr_coc.queries import PAD


class QueryEncoder(nn.Module):
    """Token numbers ``[..., L]`` to facets ``[..., facets, width]``.

    Each facet looks for its own words: a pair of words that was never trained together finds
    the same facets as each did alone. Unknown words are not seen; where none is left, the query
    is that of ``fallback``.

    Args:
        words: in the vocabulary, without ``PAD``.
        fallback: token numbers of the query that stands for an empty one.
        facets, width: of the result.
    """

    def __init__(self, words: int, fallback: Tensor, facets: int, width: int) -> None:
        super().__init__()
        self.register_buffer("fallback", fallback)
        self.embedding = nn.Embedding(words + 1, width, padding_idx=PAD)
        self.nothing = nn.Parameter(torch.zeros(facets, width))  # a facet that no word is about
        self.attention = nn.Parameter(torch.randn(facets, width) * 0.5)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        empty = (tokens == PAD).all(dim=-1, keepdim=True)
        tokens = torch.where(empty, self.fallback, tokens)  # type: ignore[arg-type]
        words = self.embedding(tokens)  # [..., L, width]
        scores = torch.einsum("...ld,fd->...fl", words, self.attention)
        scores = scores.masked_fill((tokens == PAD).unsqueeze(-2), -1e4)
        none = torch.zeros_like(scores[..., :1])
        shares = torch.cat([scores, none], dim=-1).softmax(dim=-1)
        pooled = torch.einsum("...fl,...ld->...fd", shares[..., :-1], words)
        pooled = pooled + shares[..., -1:] * self.nothing
        return pooled + self.mlp(pooled)


class InformationScorer(nn.Module):
    """How much a patch holds, and how much of it is lost at each number of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.zeros(()))
        self.weights = nn.Linear(3, 1)
        self.loss = nn.Linear(STATISTICS, len(LEVELS))

    def forward(self, features: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Scores patches.

        Args:
            features: ``[B, C, GH, GW]``.
            statistics: ``[B, STATISTICS, GH, GW]``.

        Returns:
            Information ``[B, N]`` in (0, 1), and the log of the squared error of a pixel at each
            of ``LEVELS``, ``[B, N, len(LEVELS)]``.
        """
        rows = statistics.flatten(2).transpose(1, 2)  # [B, N, STATISTICS]
        shares = (features.flatten(2) * self.temperature.exp()).softmax(dim=1)
        entropy = -(shares * (shares + 1e-9).log()).sum(dim=1)
        entropy = entropy / torch.log(torch.tensor(float(features.shape[1])))
        seen = torch.stack([rows[..., 0], entropy, rows[..., 2] / 5.0], dim=-1)
        return self.weights(seen).squeeze(-1).sigmoid(), self.loss(rows)


class SalienceScorer(nn.Module):
    """Whether a patch stands out from those around it, ``[B, N]`` in (0, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, 16, 1)
        self.judge = nn.Conv2d(18, 1, 3, padding=1)

    def forward(self, features: Tensor, statistics: Tensor) -> Tensor:
        around = functional.avg_pool2d(features, 5, 1, 2, count_include_pad=False)
        size = features.norm(dim=1, keepdim=True)
        contrast = (features - around).norm(dim=1, keepdim=True) / (size + 1e-6)
        seen = [torch.relu(self.look(features)), contrast, statistics[:, 1:2] / 5.0]
        return torch.as_tensor(self.judge(torch.cat(seen, dim=1)).sigmoid().flatten(1))


class QueryCouplingScorer(nn.Module):
    """Whether a patch is what the query means, as a logit ``[B, Q, N]``.

    A patch must fit every facet of the query: the probabilities of the facets are multiplied.
    """

    def __init__(self, channels: int, facets: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Sequential(
            nn.Conv2d(channels + 4, 2 * width, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, facets * width, 1),
        )
        self.bias = nn.Linear(width, 1)
        self.facets, self.width = facets, width

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        """Couples pictures ``[B, C, GH, GW]`` with queries ``[B, Q, facets, width]``."""
        keys = self.keys(torch.cat([features, positions(features)], dim=1))
        keys = keys.unflatten(1, (self.facets, self.width)).flatten(3)  # [B, facets, width, N]
        scores = torch.einsum("bqfd,bfdn->bqfn", query, keys) * self.width**-0.5
        scores = scores + self.bias(query) + 2.0
        fits = functional.logsigmoid(scores).sum(dim=2).clamp(-30.0, -1e-6)
        return fits - torch.log(-torch.expm1(fits))


def positions(features: Tensor) -> Tensor:
    """Returns ``[B, 4, GH, GW]``: y and x from -1 to 1, and whether each is past the middle."""
    batch, _, height, width = features.shape
    y = (torch.arange(height, dtype=features.dtype) + 0.5) * (2 / height) - 1
    x = (torch.arange(width, dtype=features.dtype) + 0.5) * (2 / width) - 1
    grid = torch.stack([y[:, None].expand(height, width), x[None].expand(height, width)])
    both = torch.cat([grid, (grid > 0).to(grid.dtype)])
    return both[None].expand(batch, -1, -1, -1)
