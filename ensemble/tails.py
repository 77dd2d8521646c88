"""Tail probabilities of the binomial and chi-square distributions, exact, with numpy alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def binomial_pmf(n: int, p: float) -> npt.NDArray[np.float64]:
    """P[X = k] for k = 0 .. n [n + 1]."""
    if p in (0.0, 1.0):
        certain = np.zeros(n + 1)
        certain[n if p else 0] = 1
        return certain
    k = np.arange(n)
    steps = np.log((n - k) / (k + 1)) + (math.log(p) - math.log1p(-p))
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + n * math.log1p(-p)
    pmf: npt.NDArray[np.float64] = np.exp(logs)
    return pmf


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P[X <= k]."""
    return min(1.0, float(binomial_pmf(n, p)[: k + 1].sum())) if k < n else 1.0


def binomial_two_sided(k: int, n: int, p: float) -> float:
    """The exact test of a share: the probability of all counts that are no likelier than k."""
    pmf = binomial_pmf(n, p)
    return min(1.0, math.fsum(pmf[pmf <= pmf[k] * (1 + 1e-7)]))


def binomial_upper(k: int, n: int, delta: float) -> float:
    """Clopper and Pearson's upper bound: the share is below it with probability 1 - delta."""
    if k >= n:
        return 1.0
    low, high = k / n, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_cdf(k, n, middle) > delta else (low, middle)
    return high


def chi_square_tail(x: float, degrees: int) -> float:
    """P[X > x] for a positive whole number of degrees of freedom."""
    half = x / 2
    if half <= 0:
        return 1.0
    order, tail = (0.5, math.erfc(math.sqrt(half))) if degrees % 2 else (1.0, math.exp(-half))
    while order < degrees / 2:
        tail += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return min(1.0, tail)
