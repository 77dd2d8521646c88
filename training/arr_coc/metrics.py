"""Ranking metrics over patches, with a weight for each (a bootstrap's counts of its picture)."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Ranking:
    """The patches of a query, the most relevant first.

    Attributes:
        order: positions in the flattened scores; ties in the order of position.
        truth: whether each, in that order, is relevant.
        ends: positions in ``order`` after which a run of equal scores ends: where a threshold can
            cut.
        scores: in that order.
    """

    order: np.ndarray
    truth: np.ndarray
    ends: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> Ranking:
        """Ranks scores of any shape; ``truth`` has the same."""
        flat = scores.reshape(-1)
        order = np.argsort(-flat, kind="stable")
        ranked = flat[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        return cls(order, truth.reshape(-1)[order].astype(bool), ends, ranked)

    def curve(self, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns recall and precision at every cut; ``weights`` are those of the patches."""
        if weights is None:
            hits = np.cumsum(self.truth)[self.ends].astype(np.float64)
            taken = (self.ends + 1).astype(np.float64)
        else:
            ordered = weights.reshape(-1)[self.order].astype(np.float64)
            hits = np.cumsum(ordered * self.truth)[self.ends]
            taken = np.cumsum(ordered)[self.ends]
        total = hits[-1]
        recall = hits / total if total else np.zeros_like(hits)
        return recall, np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)

    def precision_at(self, recall: float, weights: np.ndarray | None = None) -> float:
        """Returns the precision of the first cut that reaches ``recall``."""
        recalls, precisions = self.curve(weights)
        cut = min(int(np.searchsorted(recalls, recall - 1e-12)), len(recalls) - 1)
        return float(precisions[cut])

    def threshold_at(self, recall: float, weights: np.ndarray | None = None) -> float:
        """Returns the highest threshold (``score >= threshold``) that reaches ``recall``."""
        recalls, _ = self.curve(weights)
        cut = min(int(np.searchsorted(recalls, recall - 1e-12)), len(recalls) - 1)
        return float(self.scores[self.ends[cut]])


def average_precision(
    scores: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Returns the area under the precision-recall curve, without interpolation."""
    recall, precision = Ranking.of(scores, truth).curve(weights)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Returns the expected calibration error over bins of equal width."""
    p, y = probabilities.reshape(-1), truth.reshape(-1).astype(np.float64)
    place = np.minimum((p * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    gaps = np.bincount(place, p, bins) - np.bincount(place, y, bins)
    return float(np.abs(gaps).sum() / max(1, counts.sum()))
