"""Stacking: regularised multinomial logistic regression on the members' log-probabilities."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.mixtures import Doubles
from crossfade.ensemble.scores import softmax
from crossfade.runtimes.core.errors import FailedPrecondition

_TOLERANCE: Final = 1e-8


def stack(
    logs: Doubles, labels: npt.NDArray[np.intp], prior: Doubles, strength: float = 1.0
) -> tuple[Doubles, Doubles]:
    """An exponent for each member [M] and a bias for each class [C], by penalised likelihood.

    The score of class c is sum_m exponent[m] * logs[m, n, c] + bias[c]: a logarithmic pool whose
    weights are free, with M + C parameters, where one weight for each pair of classes would have
    M * C^2. The penalty, strength / 2 times the squared distance to the prior's exponents and no
    bias, stands beside the sum over the rows: it fades as they grow. Newton's method.

    Args:
        logs: [M, N, C] log-probabilities.
        labels: [N] class indexes.
        prior: [M] exponents that the fit is drawn to; with the convex weights a useless member,
            whose calibrated scores are all alike and would resist nothing, is drawn to none.
        strength: positive.

    Raises:
        FailedPrecondition: no convergence.
    """
    members, rows, classes = logs.shape
    start = np.concatenate([prior, np.zeros(classes)])
    theta = start.copy()
    target = np.zeros((rows, classes))
    target[np.arange(rows), labels] = 1

    def objective(at: Doubles) -> float:
        z = np.tensordot(at[:members], logs, 1) + at[members:]
        top = z.max(axis=1)
        mass = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        penalty = strength / 2 * float(np.sum((at - start) ** 2))
        return float(np.sum(mass - z[np.arange(rows), labels])) + penalty

    value = objective(theta)
    for _ in range(100):
        p = softmax(np.tensordot(theta[:members], logs, 1) + theta[members:])  # [N, C]
        slope = np.concatenate([np.tensordot(logs, p - target, 2), (p - target).sum(axis=0)])
        slope += strength * (theta - start)
        step = -np.linalg.solve(_curvature(logs, p, strength), slope)
        decrement = float(-slope @ step)
        if decrement / 2 <= _TOLERANCE * rows:
            return theta[:members], theta[members:]
        length = 1.0
        while (after := objective(theta + length * step)) > value - length * decrement / 4:
            length /= 2
            if length < 1e-8:  # at the precision of the floats: as good as it gets
                return theta[:members], theta[members:]
        theta, value = theta + length * step, after
    raise FailedPrecondition("stacking did not converge; are all log-probabilities finite?")


def _curvature(logs: Doubles, p: Doubles, strength: float) -> Doubles:
    """The Hessian [M + C, M + C] of the penalised log-loss."""
    weighted = logs * p  # [M, N, C]
    means = weighted.sum(axis=2)  # [M, N]
    exponents = np.tensordot(weighted, logs, ([1, 2], [1, 2])) - means @ means.T
    cross = weighted.sum(axis=1) - means @ p  # [M, C]
    biases = np.diag(p.sum(axis=0)) - p.T @ p
    curve = np.block([[exponents, cross], [cross.T, biases]])
    return curve + strength * np.eye(len(curve))
