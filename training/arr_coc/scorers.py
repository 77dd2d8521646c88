"""Knowing: what a patch holds, whether it stands out, and whether it is what the query means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossfade.training.arr_coc.backbone import FEATURES, Detection
from crossfade.training.arr_coc.geometry import OFFSET_SCALE
from crossfade.training.arr_coc.patch_statistics import LEVELS, STATISTICS
from crossfade.training.arr_coc.queries import PAD


class QueryEncoder(nn.Module):
    """Token numbers ``[..., L]`` to a predicate for each word, ``[..., L, width]``.

    Unknown words are not seen; where none is left, the query is that of ``fallback``.

    Args:
        words: in the vocabulary, without ``PAD``.
        fallback: token numbers of the query that stands for an empty one.
        width: of a predicate.
    """

    def __init__(self, words: int, fallback: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("fallback", fallback)
        self.embedding = nn.Embedding(words + 1, width, padding_idx=PAD)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the predicates, and which of them are of known words, FP32 ``[..., L]``."""
        empty = (tokens == PAD).all(dim=-1, keepdim=True)
        tokens = torch.where(empty, self.fallback, tokens)  # type: ignore[arg-type]
        words = self.embedding(tokens)
        return words + self.mlp(words), (tokens != PAD).to(words.dtype)


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
        """Scores; ``features`` ``[B, C, GH, GW]``, ``statistics`` ``[B, STATISTICS, GH, GW]``."""
        around = functional.avg_pool2d(features, 5, 1, 2, count_include_pad=False)
        size = features.norm(dim=1, keepdim=True)
        contrast = (features - around).norm(dim=1, keepdim=True) / (size + 1e-6)
        seen = [torch.relu(self.look(features)), contrast, statistics[:, 1:2] / 5.0]
        return torch.as_tensor(self.judge(torch.cat(seen, dim=1)).sigmoid().flatten(1))


class QueryCouplingScorer(nn.Module):
    """Whether a patch is what the query means, as a logit ``[B, Q, N]``.

    Each patch is read as one thing of each of the detector's classes: how likely it is there, and
    where its centre is. A thing is meant if every word of the query fits it; a patch is relevant
    if one of its things is meant. A word's meaning depends on no other word, so that a pair which
    was never trained together means what its words do.
    """

    def __init__(self, n_classes: int, width: int, centres: bool) -> None:
        super().__init__()
        self.n_classes, self.width, self.centres = n_classes, width, centres
        told = 10 if centres else 6
        self.features = nn.Conv2d(FEATURES, 2 * width, 1)
        self.things = nn.Linear(told, 2 * width, bias=False)
        self.names = nn.Parameter(torch.randn(n_classes, 2 * width) * 0.5)
        self.keys = nn.Linear(2 * width, width)
        self.bias = nn.Linear(width, 1)
        # At first a thing is there as the detector says, and every word fits everything.
        self.trust = nn.Parameter(torch.tensor(1.5))
        self.doubt = nn.Conv2d(FEATURES, n_classes, 1)
        nn.init.zeros_(self.doubt.weight)
        nn.init.zeros_(self.doubt.bias)  # type: ignore[arg-type]

    def forward(self, seen: Detection, query: Tensor, known: Tensor) -> Tensor:
        """Couples pictures with queries.

        Args:
            seen: of ``B`` pictures.
            query: predicates ``[B, Q, L, width]``.
            known: 1 for words that count, ``[B, Q, L]``.
        """
        shared = self.features(seen.features).flatten(2).transpose(1, 2)  # [B, N, 2·width]
        own = self.things(self._things(seen)) + self.names.unsqueeze(1)  # [B, K, N, 2·width]
        keys = self.keys(torch.relu(shared.unsqueeze(1) + own))  # [B, K, N, width]
        fits = torch.einsum("bqld,bknd->bqlkn", query, keys) * self.width**-0.5
        fits = 2.0 * fits + self.bias(query).unsqueeze(-1) + 3.0
        there = self.trust * seen.class_logits + self.doubt(seen.features)  # [B, K, GH, GW]
        each = (functional.logsigmoid(fits) * known[..., None, None]).sum(dim=2)
        each = each + functional.logsigmoid(there).flatten(2).unsqueeze(1)  # [B, Q, K, N]
        none = torch.log(-torch.expm1(each.clamp(-30.0, -1e-4))).sum(dim=2)  # [B, Q, N]
        none = none.clamp(-30.0, -1e-6)
        return torch.log(-torch.expm1(none)) - none

    def _things(self, seen: Detection) -> Tensor:
        """Returns what the detector says of the thing of each class, ``[B, K, N, told]``."""
        grid = positions(seen.features).unsqueeze(1).expand(-1, self.n_classes, -1, -1, -1)
        logits = torch.stack(
            [seen.class_logits, seen.objectness.expand_as(seen.class_logits)], dim=2
        )
        parts = [grid, logits / 4.0]
        if self.centres:
            offsets = seen.offsets.unflatten(1, (-1, 2)) * (2 / OFFSET_SCALE)
            centres = offsets + grid[:, :, :2].flip(2)  # x, y from -1 to 1
            parts += [centres, torch.tanh(8.0 * centres)]
        return torch.cat(parts, dim=2).flatten(3).transpose(2, 3)


def positions(features: Tensor) -> Tensor:
    """Returns ``[B, 4, GH, GW]``: y and x from -1 to 1, and whether each is past the middle."""
    batch, _, height, width = features.shape
    y = (torch.arange(height, dtype=features.dtype) + 0.5) * (2 / height) - 1
    x = (torch.arange(width, dtype=features.dtype) + 0.5) * (2 / width) - 1
    grid = torch.stack([y[:, None].expand(height, width), x[None].expand(height, width)])
    both = torch.cat([grid, (grid > 0).to(grid.dtype)])
    return both[None].expand(batch, -1, -1, -1)
