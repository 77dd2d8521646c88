"""How far two answers are apart. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from crossfade.runtimes.core.model import Tensor

_TINY: Final = float(np.finfo(np.float64).tiny)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One output of both sides.

    Attributes:
        max_abs: largest difference of two elements; of texts and mismatched shapes, infinity
            where anything differs.
        scale: the reference's largest magnitude.
        cosine: of the two as vectors; 1 where both are zero.
        finite: the answer is finite wherever the reference is.
        overlap: of whole numbers and booleans, what both have in common: 1 less the sum of the
            differences, as a part of the sum of each element's larger magnitude. Counts in which
            a few are moved have a cosine near 1 whatever they count; this tells how many are.
    """

    max_abs: float
    scale: float
    cosine: float
    finite: bool
    overlap: float | None = None

    @property
    def relative(self) -> float:
        """The difference as a part of the reference's largest magnitude."""
        return self.max_abs / self.scale if self.scale else self.max_abs

    def within(self, tolerance: float) -> bool:
        """Whether it is at most ``tolerance``, times the reference's magnitude where above 1."""
        return self.finite and self.max_abs <= tolerance * max(1.0, self.scale)


def compare(reference: Tensor, answer: Tensor) -> Difference:
    """Compares two arrays, element by element.

    Elements that are not finite in the reference must be the same ones in the answer, and are
    left out of the numbers.
    """
    if reference.shape != answer.shape or reference.dtype.kind != answer.dtype.kind:
        return Difference(np.inf, 0.0, 0.0, False)
    if reference.dtype.kind in "OSU":
        same = bool(np.array_equal(reference, answer))
        return Difference(0.0 if same else np.inf, 0.0, float(same), True)
    was, now = reference.astype(np.float64), answer.astype(np.float64)
    usual = np.isfinite(was)
    finite = bool(np.isfinite(now[usual]).all()) and _same_odd(was[~usual], now[~usual])
    was, now = was[usual], now[usual]
    if not finite:
        return Difference(np.inf, _largest(was), 0.0, False)
    overlap = _overlap(was, now) if reference.dtype.kind in "iub" else None
    return Difference(_largest(now - was), _largest(was), _cosine(was, now), True, overlap)


def top1(scores: Tensor) -> Tensor:
    """The index of each row's largest score.

    Args:
        scores: [rows, classes].

    Returns:
        INT64 [rows].
    """
    best: Tensor = np.argmax(scores, axis=1)
    return best


def _same_odd(was: Tensor, now: Tensor) -> bool:
    return bool(np.array_equal(was, now, equal_nan=True))


def _largest(values: Tensor) -> float:
    return float(np.abs(values).max()) if values.size else 0.0


def _overlap(was: Tensor, now: Tensor) -> float:
    larger = float(np.maximum(np.abs(was), np.abs(now)).sum())
    return 1.0 - float(np.abs(now - was).sum()) / larger if larger else 1.0


def _cosine(was: Tensor, now: Tensor) -> float:
    # Scaled first: squares of large numbers overflow, those of small ones vanish.
    lengths = [max(_largest(each), _TINY) for each in (was, now)]
    a, b = (each.ravel() / length for each, length in zip((was, now), lengths, strict=True))
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not norms[0] or not norms[1]:
        return float(norms[0] == norms[1])
    return float(np.clip(np.dot(a / norms[0], b / norms[1]), -1.0, 1.0))
