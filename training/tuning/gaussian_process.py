"""A Gaussian process on the unit cube, small and deterministic: some hundred points at most."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
_LENGTHS: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
_NOISES: Final = (1e-6, 1e-3, 1e-1)
_STEPS: Final = (0.5, 2.0)
_SHORTEST: Final = 0.05
_LONGEST: Final = 6.4


class GaussianProcess:
    """Matern 5/2, one length for each coordinate, values standardised.

    Lengths and noise are those of the largest marginal likelihood (times a weak prior of moderate
    lengths) on a grid, then along each coordinate; thread-safe once it is made.
    """

    def __init__(self, points: Vector, values: Vector) -> None:
        """Fits [n, d] points and their [n] values; n is at least 1."""
        self.mean = float(np.mean(values))
        self.scale = float(np.std(values)) or 1.0
        self._x = points
        self._y = (values - self.mean) / self.scale
        width = points.shape[1]
        tried = [
            (self._score(np.full(width, length), noise), length, noise)
            for length in _LENGTHS
            for noise in _NOISES
        ]
        best, length, self._noise = max(tried)
        self._lengths = np.full(width, length)
        if len(points) > width:
            for _ in range(2):
                best = self._sharpen(best)
        self._factor, self._solved = self._solve(self._lengths, self._noise)

    def predict(self, points: Vector) -> tuple[Vector, Vector]:
        """Means [m] and variances [m] of the function at [m, d], standardised as the values."""
        cross = _matern(points, self._x, self._lengths)  # [m, n]
        half = np.linalg.solve(self._factor, cross.T)  # [n, m]
        variance = np.maximum(1.0 - np.sum(half**2, axis=0), 1e-12)
        return cross @ self._solved, variance

    def sample(self, points: Vector, count: int, random: np.random.Generator) -> Vector:
        """Draws [count, m] of the function at [m, d], together."""
        cross = _matern(points, self._x, self._lengths)
        half = np.linalg.solve(self._factor, cross.T)
        covariance = _matern(points, points, self._lengths) - half.T @ half
        covariance[np.diag_indices_from(covariance)] += 1e-8
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        drawn = random.standard_normal((count, len(points)))
        sampled: Vector = cross @ self._solved + drawn @ root.T
        return sampled

    def left_out(self) -> tuple[Vector, Vector]:
        """Means and variances at each point, of the process without it (Rasmussen, eq. 5.12)."""
        inverse = np.linalg.inv(self._factor)
        precision = np.sum(inverse**2, axis=0)  # the diagonal of K^-1
        return self._y - self._solved / precision, 1 / precision

    @property
    def values(self) -> Vector:
        """The standardised values that it was fitted to."""
        return self._y

    def _sharpen(self, best: float) -> float:
        for axis in range(len(self._lengths)):
            for step in _STEPS:
                other = self._lengths.copy()
                other[axis] = min(max(other[axis] * step, _SHORTEST), _LONGEST)
                score = self._score(other, self._noise)
                if score > best:
                    best, self._lengths = score, other
        return best

    def _score(self, lengths: Vector, noise: float) -> float:
        try:
            factor, solved = self._solve(lengths, noise)
        except np.linalg.LinAlgError:
            return -math.inf
        likelihood = -0.5 * self._y @ solved - np.sum(np.log(np.diag(factor)))
        return float(likelihood - 0.5 * np.sum(np.log(lengths / 0.5) ** 2))

    def _solve(self, lengths: Vector, noise: float) -> tuple[Vector, Vector]:
        covariance = _matern(self._x, self._x, lengths)
        covariance[np.diag_indices_from(covariance)] += noise + 1e-8
        factor = np.asarray(np.linalg.cholesky(covariance), np.float64)
        return factor, np.linalg.solve(factor.T, np.linalg.solve(factor, self._y))


def _matern(a: Vector, b: Vector, lengths: Vector) -> Vector:
    a, b = a / lengths, b / lengths
    squares = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1)[None, :] - 2 * a @ b.T
    distance = np.sqrt(5 * np.maximum(squares, 0))
    kernel: Vector = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return kernel
