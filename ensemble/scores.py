"""What a member's numbers mean, and how they become log-scores that can be combined.

Exclusive scores (one class is right) become log-probabilities, independent ones (any number of
labels is right) become log-odds. In both a temperature divides and a logarithmic pool adds.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import Internal
from crossfade.runtimes.core.model import Tensor

Floats = npt.NDArray[np.float32]

# No member's say is stronger than one in ten million: a zero, often only the rounding of a small
# number, must not forbid what every other member sees.
FLOOR: Final = 1e-7
_LOG_FLOOR: Final = math.log(FLOOR)
_ROUNDING: Final = 0.02  # of probabilities written in half precision or with three digits


class ScoreKind(enum.Enum):
    """What a member declares that its output is; nothing is guessed from the numbers."""

    PROBABILITIES = "probabilities"  # exclusive classes along the last dimension, sum 1
    LOGITS = "logits"  # the same before the softmax
    LABEL_PROBABILITIES = "label_probabilities"  # multi-label: each score alone is in 0 .. 1
    LABEL_LOGITS = "label_logits"  # the same before the sigmoid
    VALUES = "values"  # numbers with a unit, as of a regression

    @property
    def exclusive(self) -> bool:
        """Whether exactly one class is right."""
        return self in (ScoreKind.PROBABILITIES, ScoreKind.LOGITS)

    @property
    def probabilities(self) -> bool:
        """Whether the numbers are in 0 .. 1."""
        return self in (ScoreKind.PROBABILITIES, ScoreKind.LABEL_PROBABILITIES)


@dataclasses.dataclass(frozen=True, slots=True)
class Quantization:
    """real = scale * (stored - zero_point), as TFLite writes it."""

    scale: float
    zero_point: int = 0


def dequantize(scores: Tensor, quantization: Quantization | None) -> Tensor:
    """Real numbers: float32, or float64 where the input is.

    Raises:
        Internal: integers without a quantisation or floats with one.
    """
    if quantization is None:
        if scores.dtype.kind in "iub":
            raise Internal("integer scores need their quantisation (scale and zero point)")
        return scores if scores.dtype == np.float64 else scores.astype(np.float32, copy=False)
    if scores.dtype.kind not in "iu":
        raise Internal("a quantisation is declared, but the scores are no integers")
    shifted = scores.astype(np.int64) - quantization.zero_point
    return (shifted * quantization.scale).astype(np.float32)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities along the last dimension."""
    result: Tensor = np.exp(log_softmax(logits))
    return result


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities along the last dimension, for logits of any size; -inf is allowed."""
    with np.errstate(over="ignore"):  # a difference past the largest float is -inf: right
        shifted = logits - np.max(logits, axis=-1, keepdims=True)
    result: Tensor = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return result


def sigmoid(logits: Tensor) -> Tensor:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    result: Tensor = np.where(logits >= 0, 1, small) / (1 + small)
    return result


def log_scores(
    scores: Tensor,
    kind: ScoreKind,
    *,
    quantization: Quantization | None = None,
    temperature: float = 1.0,
) -> Floats:
    """Calibrated log-probabilities (exclusive kinds) or log-odds (multi-label), float32.

    Args:
        scores: [..., C] as the member wrote them.
        kind: what they are; not ``VALUES``.
        quantization: of integer scores.
        temperature: above 1 makes the member less sure.

    Raises:
        Internal: the scores cannot be what is declared: not finite, outside 0 .. 1,
            exclusive probabilities that do not sum to 1.
    """
    real = dequantize(scores, quantization)
    if kind is ScoreKind.VALUES or real.ndim == 0 or not real.shape[-1]:
        raise Internal("values without classes have no log-scores")
    step = quantization.scale if quantization else 0.0
    if kind.probabilities:
        _check_probabilities(real, kind, step)
        if kind.exclusive:  # together the zeros of a row get no more than half a step
            floor = max(FLOOR, step / (2 * max(1, real.shape[-1])))
            logits = np.log(np.maximum(real, floor))
        else:
            floor = max(FLOOR, step / 2)
            inside = np.clip(real.astype(np.float64), floor, 1 - floor)
            logits = np.log(inside) - np.log1p(-inside)
    else:
        _check_logits(real)
        logits = real
    with np.errstate(over="ignore"):
        if kind.exclusive:  # before the temperature, which could carry the largest to infinity
            logits = logits - np.max(logits, axis=-1, keepdims=True)
        cooled = np.asarray(logits / temperature)
    if kind.exclusive:
        return np.asarray(np.maximum(log_softmax(cooled), _LOG_FLOOR), np.float32)
    return np.asarray(np.clip(cooled, _LOG_FLOOR, -_LOG_FLOOR), np.float32)


def doubted(logs: Tensor, doubt: float) -> Tensor:
    """Log-probabilities along the last dimension that leave ``doubt`` to all classes equally.

    Who has been checked on n rows cannot know of what is rarer than one in n: without doubt a zero
    that was never found wrong outweighs all other members on the first row where it is.
    """
    if not doubt:
        return logs
    result: Tensor = np.log((1 - doubt) * np.exp(logs) + doubt / logs.shape[-1])
    return result


def normalised(scores: Tensor, kind: ScoreKind, quantization: Quantization | None = None) -> Floats:
    """Exclusive probabilities as ``probabilities`` of their ``log_scores``: a third of the work."""
    real = dequantize(scores, quantization)
    if real.ndim == 0 or not real.shape[-1]:
        raise Internal("values without classes have no log-scores")
    step = quantization.scale if quantization else 0.0
    _check_probabilities(real, kind, step)
    raised = np.maximum(real, max(FLOOR, step / (2 * max(1, real.shape[-1]))))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def probabilities(logs: Tensor, *, exclusive: bool) -> Floats:
    """From log-scores to probabilities, float32; exclusive ones sum to 1."""
    return np.asarray(softmax(logs) if exclusive else sigmoid(logs), np.float32)


def calibrated(
    scores: Tensor,
    kind: ScoreKind,
    *,
    quantization: Quantization | None = None,
    temperature: float = 1.0,
) -> Floats:
    """Calibrated probabilities, float32; what already is that is only checked.

    Args and errors: as of ``log_scores``.
    """
    if kind.probabilities and quantization is None and temperature == 1 and scores.ndim:
        real = dequantize(scores, None)
        _check_probabilities(real, kind, 0.0)
        return real.astype(np.float32, copy=False)
    logs = log_scores(scores, kind, quantization=quantization, temperature=temperature)
    return probabilities(logs, exclusive=kind.exclusive)


def is_normalised(real: Tensor) -> bool:
    """Whether floats [..., C] may be exclusive probabilities; what is not finite is not."""
    if not real.size or not real.min() >= 0:
        return False
    return bool(np.abs(real.sum(axis=-1) - 1).max() <= _ROUNDING)


def _check_probabilities(real: Tensor, kind: ScoreKind, step: float) -> None:
    slack = max(1e-3, step)
    inside = bool(real.min() >= -slack) and bool(real.max() <= 1 + slack) if real.size else True
    if not inside:  # or NaN
        raise Internal(f"scores declared as {kind.value} are outside 0 .. 1")
    if kind.exclusive:
        sums = np.sum(real, axis=-1)
        if not bool(np.all(np.abs(sums - 1) <= _ROUNDING + step * real.shape[-1])):
            raise Internal(
                "scores declared as probabilities do not sum to 1; multi-label scores are "
                f"{ScoreKind.LABEL_PROBABILITIES.value}"
            )


def _check_logits(real: Tensor) -> None:
    top = np.max(real, axis=-1)
    if bool(np.any(np.isnan(real))) or not bool(np.all(np.isfinite(top))):
        raise Internal("the logits are not finite")
