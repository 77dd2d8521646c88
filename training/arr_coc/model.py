"""The query-aware heads on a frozen detector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from crossfade.training.arr_coc.backbone import FEATURES, Detection
from crossfade.training.arr_coc.balancer import TensionBalancer, Tensions
from crossfade.training.arr_coc.config import HeadsConfig
from crossfade.training.arr_coc.scorers import (
    InformationScorer,
    QueryCouplingScorer,
    QueryEncoder,
    SalienceScorer,
)


class Scores(NamedTuple):
    """What the heads say.

    Attributes:
        logits: relevance, ``[B, Q, N]``.
        log_losses: ``[B, N, levels]``.
        information, salience: ``[B, N]``.
        tensions: ``None`` where the balancer is off.
    """

    logits: Tensor
    log_losses: Tensor
    information: Tensor
    salience: Tensor
    tensions: Tensions | None


class QueryHeads(nn.Module):
    """Features of a picture and queries to the relevance of every patch.

    Everything is computed for each picture and each query alone: no result depends on what else
    is in the batch.
    """

    def __init__(self, n_classes: int, words: int, fallback: Tensor, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = QueryEncoder(words, fallback, config.width)
        self.information = InformationScorer()
        self.salience = SalienceScorer(FEATURES)
        self.coupling = QueryCouplingScorer(n_classes, config.width, config.centres)
        self.balancer = TensionBalancer(config.width)
        # Calibration: fitted on the validation split after training.
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, seen: Detection, statistics: Tensor, tokens: Tensor) -> Scores:
        """Scores patches.

        Args:
            seen: the frozen detector's answer.
            statistics: ``[B, STATISTICS, GH, GW]`` of ``PatchStatistics``.
            tokens: INT64 ``[B, Q, L]``.
        """
        query, known = self.encoder(tokens)  # [B, Q, L, width], [B, Q, L]
        coupling = self.coupling(seen, query, known)
        information, log_losses = self.information(seen.features, statistics)
        salience = self.salience(seen.features, statistics)
        logits, tensions = coupling, None
        if self.config.tension:
            off = torch.full_like(information, 0.5)
            logits, tensions = self.balancer(
                information if self.config.information else off,
                salience if self.config.salience else off,
                coupling,
                (query * known.unsqueeze(-1)).mean(dim=2),
                seen.features.shape[-1],
            )
        logits = logits * self.scale + self.shift
        return Scores(logits, log_losses, information, salience, tensions)
