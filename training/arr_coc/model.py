"""The query-aware heads on a frozen detector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from crossfade.training.arr_coc.backbone import FEATURES, Detection
from crossfade.training.arr_coc.balancer import TensionBalancer, Tensions
from crossfade.training.arr_coc.config import HeadsConfig
from crossfade.training.arr_coc.geometry import OFFSET_SCALE
from crossfade.training.arr_coc.scorers import (
    InformationScorer,
    QueryCouplingScorer,
    QueryEncoder,
    SalienceScorer,
    positions,
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
        channels = FEATURES + (3 * n_classes + 5 if config.detector_outputs else 0)
        self.encoder = QueryEncoder(words, fallback, config.facets, config.width)
        self.information = InformationScorer()
        self.salience = SalienceScorer(FEATURES)
        self.coupling = QueryCouplingScorer(channels, config.facets, config.width)
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
        query = self.encoder(tokens)  # [B, Q, facets, width]
        features = _told(seen) if self.config.detector_outputs else seen.features
        coupling = self.coupling(features, query)
        information, log_losses = self.information(seen.features, statistics)
        salience = self.salience(seen.features, statistics)
        logits, tensions = coupling, None
        if self.config.tension:
            off = torch.full_like(information, 0.5)
            logits, tensions = self.balancer(
                information if self.config.information else off,
                salience if self.config.salience else off,
                coupling,
                query.mean(dim=2),
                seen.features.shape[-1],
            )
        logits = logits * self.scale + self.shift
        return Scores(logits, log_losses, information, salience, tensions)


def _told(seen: Detection) -> Tensor:
    """Adds the detector's answers to its features.

    Where the box that covers a patch has its centre is also said of the likeliest class alone, as
    a place and as the side of the middle: "where" can then be read without knowing "what".
    """
    grid = positions(seen.features)[:, :2].flip(1)  # x, y from -1 to 1
    offsets = seen.offsets.unflatten(1, (-1, 2)) * (2 / OFFSET_SCALE)
    shares = (2.0 * seen.class_logits).softmax(dim=1).unsqueeze(2)
    centre = (offsets * shares).sum(dim=1) + grid
    logits = torch.cat([seen.class_logits, seen.objectness], dim=1) / 4.0
    return torch.cat([seen.features, logits, seen.offsets, centre, torch.tanh(8 * centre)], dim=1)
