"""How far a member's probabilities can be believed, and the temperature that mends them."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.scores import FLOOR, sigmoid, softmax
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

_COLDEST, _HOTTEST = 0.01, 100.0
_TOLERANCE: Final = 1e-10


def fit_temperature(logs: Tensor, targets: Tensor) -> float:
    """The temperature T for which softmax(logs / T) has the least log-loss (Guo et al., 2017).

    The problem is convex in 1/T and solved by Newton steps inside a shrinking bracket. Targets are
    smoothed as Platt did (N + 1 of N + 2), so that a member without an error stays finite.

    Args:
        logs: log-scores [N, C] that the member was not trained on: logits or log-probabilities,
            or log-odds where the targets are multi-label.
        targets: [N] class indexes, or [N, C] of 0 and 1 for multi-label scores (then sigmoid).

    Returns:
        0.01 to 100; 1 where the scores say nothing.

    Raises:
        InvalidArgument: no rows, or shapes or indexes that do not fit.
    """
    z = np.asarray(logs, np.float64)
    exclusive = np.ndim(targets) == 1
    _check(z, targets)
    smoothed = 1 / (len(z) + 2)
    if exclusive:
        wanted = (1 - smoothed) * _true_class(z, targets) + smoothed * z.mean(axis=1)
    else:
        aim = (1 - smoothed) * np.asarray(targets, np.float64) + smoothed / 2

    def slope_and_curve(beta: float) -> tuple[float, float]:
        if exclusive:
            p = softmax(beta * z)
            mean = np.sum(p * z, axis=1)
            curve = np.sum(p * (z - mean[:, None]) ** 2, axis=1)
            return float(np.mean(mean - wanted)), float(np.mean(curve))
        p = sigmoid(beta * z)
        return float(np.mean((p - aim) * z)), float(np.mean(p * (1 - p) * z**2))

    low, high = 1 / _HOTTEST, 1 / _COLDEST
    beta = 1.0
    for _ in range(100):
        slope, curve = slope_and_curve(beta)
        if abs(slope) <= _TOLERANCE:
            break
        low, high = (low, beta) if slope > 0 else (beta, high)
        step = beta - slope / curve if curve > 0 else low
        beta = step if low < step < high else float(np.sqrt(low * high))
    return 1 / beta


def log_loss(probabilities: Tensor, targets: Tensor) -> npt.NDArray[np.float64]:
    """-log of the probability of what was true, for each row [N].

    Args:
        probabilities: [N, C].
        targets: [N] class indexes, or [N, C] of 0 and 1: then the mean over the labels.
    """
    p = np.asarray(probabilities, np.float64)
    _check(p, targets)
    if np.ndim(targets) == 1:
        losses: npt.NDArray[np.float64] = -np.log(np.maximum(_true_class(p, targets), FLOOR))
        return losses
    right = np.where(np.asarray(targets) > 0, p, 1 - p)
    rows: npt.NDArray[np.float64] = -np.log(np.maximum(right, FLOOR)).mean(axis=1)
    return rows


def expected_calibration_error(
    probabilities: Tensor, labels: npt.NDArray[np.intp], bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over equally wide bins of confidence.

    Args:
        probabilities: [N, C].
        labels: [N] class indexes.
        bins: 15 is the literature's number.
    """
    found = reliability(probabilities, labels, bins)
    gaps = found.rows * np.abs(found.confidence - found.accuracy)
    return float(gaps.sum() / found.rows.sum())


@dataclasses.dataclass(frozen=True, slots=True)
class Bins:
    """Rows by how sure a member is of its first class, in equally wide bins.

    Attributes:
        rows: [B].
        confidence, accuracy: [B] means over the rows of each bin; 0 where there are none.
    """

    rows: npt.NDArray[np.intp]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


def reliability(probabilities: Tensor, labels: npt.NDArray[np.intp], bins: int = 15) -> Bins:
    """How often the first class is right, by confidence; see ``expected_calibration_error``."""
    p = np.asarray(probabilities, np.float64)
    _check(p, labels)
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    rows = np.bincount(bin_of, minlength=bins)
    each = np.maximum(rows, 1)
    return Bins(
        rows,
        np.bincount(bin_of, weights=confidence, minlength=bins) / each,
        np.bincount(bin_of, weights=right, minlength=bins) / each,
    )


def _true_class(rows: npt.NDArray[np.float64], labels: Tensor) -> npt.NDArray[np.float64]:
    taken: npt.NDArray[np.float64] = np.take_along_axis(rows, labels[:, None], axis=1)[:, 0]
    return taken


def _check(rows: Tensor, targets: Tensor) -> None:
    if rows.ndim != 2 or not len(rows):
        raise InvalidArgument("scores must be [rows, classes], with at least one row")
    if np.ndim(targets) == 1:
        inside = targets.dtype.kind in "iu" and bool(
            np.all((targets >= 0) & (targets < rows.shape[1]))
        )
        if len(targets) != len(rows) or not inside:
            raise InvalidArgument("labels must be one class index for each row")
    elif np.shape(targets) != rows.shape:
        raise InvalidArgument("multi-label targets must have the shape of the scores")
