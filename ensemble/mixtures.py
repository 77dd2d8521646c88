"""Weights on the simplex for a mixture of members, by the log-loss of the true class.

The log-loss of a mixture depends on the members' probabilities of the true class alone, so all
functions take ``truth`` [M, N]: what member m gave to the true class of row n.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import FailedPrecondition

Doubles = npt.NDArray[np.float64]

GAP: Final = 1e-7  # how far above the best log-loss the convex weights may be, in nats
_GREEDY_ROUNDS: Final = 100


def uniform(truth: Doubles) -> Doubles:
    """1 / M each."""
    return np.full(len(truth), 1 / len(truth))


def best_single(truth: Doubles) -> Doubles:
    """All weight on the member with the least log-loss; of equal ones the first."""
    weights = np.zeros(len(truth))
    weights[np.argmax(np.log(truth).mean(axis=1))] = 1
    return weights


def greedy(truth: Doubles, rounds: int = _GREEDY_ROUNDS) -> Doubles:
    """Selection with replacement (Caruana et al., 2004): how often each member was taken.

    Each round adds the member that makes the mean of those taken so far best, of equal ones the
    first; the answer is the best of all rounds, of equal ones the earliest.
    """
    taken = np.zeros(len(truth))
    total = np.zeros(truth.shape[1])
    best, weights = np.inf, taken
    for size in range(1, rounds + 1):
        losses = -np.log((total + truth) / size).mean(axis=1)
        pick = int(np.argmin(losses))
        taken[pick] += 1
        total += truth[pick]
        if losses[pick] < best:
            best, weights = losses[pick], taken / size
    return weights


def convex(truth: Doubles) -> Doubles:
    """The simplex's least log-loss, to within ``GAP`` nats of it.

    The problem is convex. An interior-point method: Newton steps on the log-loss with a barrier
    that keeps every weight positive and shrinks until the duality gap is small.

    Raises:
        FailedPrecondition: no convergence (probabilities that are not positive numbers).
    """
    members = len(truth)
    w = uniform(truth)
    barrier = 0.1 / members
    for _ in range(500):
        if duality_gap(truth, w) <= GAP:
            return np.asarray(w / w.sum())
        ratio = truth / (w @ truth)  # [M, N]
        slope = 1 - ratio.mean(axis=1) - barrier / w
        curve = ratio @ ratio.T / truth.shape[1] + np.diag(barrier / w**2)
        step = -np.linalg.solve(curve, slope)
        decrement = float(-slope @ step)
        shrinking = step < 0
        length = min(1.0, 0.99 * float(np.min(-w[shrinking] / step[shrinking], initial=np.inf)))
        value = _with_barrier(truth, w, barrier)
        while (
            length > 1e-8
            and _with_barrier(truth, w + length * step, barrier) > value - length * decrement / 4
        ):
            length /= 2
        w = w + length * step
        if decrement <= barrier or length <= 1e-8:
            barrier = max(barrier / 10, GAP / (10 * members))
    raise FailedPrecondition("the weights did not converge; are all probabilities positive?")


def _with_barrier(truth: Doubles, w: Doubles, barrier: float) -> float:
    """The log-loss with the simplex's multiplier, which is 1, and the barrier."""
    return float(-np.log(w @ truth).mean() + w.sum() - barrier * np.log(w).sum())


def duality_gap(truth: Doubles, weights: Doubles) -> float:
    """An upper bound of how much any weights could lower the log-loss, in nats, per row."""
    w = weights / weights.sum()
    return float((truth / (w @ truth)).mean(axis=1).max() - 1)
