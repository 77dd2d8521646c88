"""Stacking against scikit-learn's logistic regression and its own optimality."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from crossfade.ensemble.scores import log_softmax, softmax
from crossfade.ensemble.stacking import stack


def sample(members: int, rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    z = rng.normal(size=(members, rows, classes))
    z[:, np.arange(rows), labels] += np.linspace(0.2, 1.5, members)[:, None]
    return log_softmax(z), labels


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_two_classes_are_scikit_learns_logistic_regression(strength: float) -> None:
    logs, labels = sample(3, 200, 2, seed=0)
    exponents, bias = stack(logs, labels, np.zeros(3), strength)

    # Only bias[1] - bias[0] counts, and a penalty on both halves is one of half the strength on
    # the difference; a feature of sqrt(1/2) makes scikit-learn's penalty the same.
    odds = (logs[:, :, 1] - logs[:, :, 0]).T
    features = np.column_stack([odds, np.full(len(labels), np.sqrt(2))])
    model = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(features, labels)

    assert exponents == pytest.approx(model.coef_[0, :3], abs=1e-4)
    assert bias[1] - bias[0] == pytest.approx(model.coef_[0, 3] * np.sqrt(2), abs=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_optimum_is_scipys(classes: int) -> None:
    logs, labels = sample(3, 150, classes, seed=1)
    prior = np.array([0.2, 0.3, 0.5])

    def objective(theta: np.ndarray) -> float:
        p = softmax(np.tensordot(theta[:3], logs, 1) + theta[3:])
        distance = (theta - np.concatenate([prior, np.zeros(classes)])) ** 2
        return float(-np.log(p[np.arange(150), labels]).sum() + distance.sum() / 2)

    found = optimize.minimize(objective, np.zeros(3 + classes), options={"gtol": 1e-7})
    exponents, bias = stack(logs, labels, prior)

    assert np.concatenate([exponents, bias]) == pytest.approx(found.x, abs=1e-3)


def test_a_strong_prior_is_the_answer() -> None:
    logs, labels = sample(2, 100, 3, seed=2)
    exponents, bias = stack(logs, labels, np.array([0.7, 0.3]), strength=1e9)

    assert exponents == pytest.approx([0.7, 0.3], abs=1e-5)
    assert bias == pytest.approx([0, 0, 0], abs=1e-5)


def test_members_that_are_always_right_stay_finite() -> None:
    labels = np.arange(60) % 3
    logs = log_softmax(40 * np.eye(3)[labels])[None].repeat(2, axis=0)

    exponents, bias = stack(logs, labels, np.array([0.5, 0.5]))

    assert np.isfinite(exponents).all()
    assert np.isfinite(bias).all()
