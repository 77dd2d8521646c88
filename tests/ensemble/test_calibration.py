"""Temperatures against SciPy's optimiser, and the measures by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from crossfade.ensemble.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
)
from crossfade.ensemble.scores import sigmoid, softmax
from crossfade.runtimes.core.errors import InvalidArgument


def drawn(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """Labels as the logits say: calibrated at temperature 1."""
    cumulative = softmax(z).cumsum(axis=1)
    return (rng.random((len(z), 1)) > cumulative).sum(axis=1).clip(0, z.shape[1] - 1)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0.1, 10))
def test_the_temperature_is_the_best_one(seed: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, classes)) * 2
    y = drawn(rng, z)
    smoothed = 1 / (len(y) + 2)
    target = np.full((len(y), classes), smoothed / classes)
    target[np.arange(len(y)), y] += 1 - smoothed

    def objective(log_t: float) -> float:
        p = softmax(z * scale / np.exp(log_t))
        return float(-(target * np.log(np.maximum(p, 1e-300))).sum(axis=1).mean())

    expected = optimize.minimize_scalar(
        objective, bounds=(np.log(0.01), np.log(100)), method="bounded", options={"xatol": 1e-9}
    )
    got = fit_temperature(z * scale, y)

    assert 0.01 <= got <= 100
    assert objective(np.log(got)) <= expected.fun + 1e-9


def test_overconfidence_is_found() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 5)) * 2
    y = drawn(rng, z)

    assert fit_temperature(z, y) == pytest.approx(1, abs=0.03)
    assert fit_temperature(3 * z, y) == pytest.approx(3, abs=0.1)
    assert expected_calibration_error(softmax(z), y) < 0.02
    assert expected_calibration_error(softmax(3 * z), y) > 0.1


def test_labels_that_do_not_exclude_each_other() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 4)) * 2
    targets = (rng.random(z.shape) < sigmoid(z)).astype(float)

    assert fit_temperature(2.5 * z, targets) == pytest.approx(2.5, abs=0.15)


def test_a_member_without_an_error_stays_finite_and_one_without_a_say_unchanged() -> None:
    z = np.eye(3)[[0, 1, 2] * 10]

    assert 0.01 < fit_temperature(z, np.array([0, 1, 2] * 10)) < 1
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, int)) == 1
    assert fit_temperature(z, np.array([1, 2, 0] * 10)) == pytest.approx(100)  # always wrong


def test_log_loss_by_hand() -> None:
    p = np.array([[0.5, 0.5], [0.25, 0.75]])

    assert log_loss(p, np.array([0, 0])) == pytest.approx(-np.log([0.5, 0.25]))
    assert log_loss(p, np.array([[0, 1], [1, 1]])) == pytest.approx(
        [-np.log(0.5), -(np.log(0.25) + np.log(0.75)) / 2]
    )
    assert np.isfinite(log_loss(np.array([[1.0, 0.0]]), np.array([1]))).all()


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])

    # 0.9 was right once of two times, 0.6 both times.
    assert expected_calibration_error(p, np.array([0, 1, 0, 0])) == pytest.approx(
        (abs(0.9 - 0.5) * 2 + abs(0.6 - 1) * 2) / 4
    )
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


@pytest.mark.parametrize(
    ("rows", "targets"),
    [
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.zeros(3), np.zeros(3, int)),
        (np.zeros((3, 2)), np.zeros(2, int)),
        (np.zeros((3, 2)), np.array([0, 1, 2])),
        (np.zeros((3, 2)), np.array([0, 1, -1])),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0])),
        (np.zeros((3, 2)), np.zeros((3, 3))),
    ],
)
def test_what_does_not_fit_is_refused(rows: np.ndarray, targets: np.ndarray) -> None:
    with pytest.raises(InvalidArgument):
        fit_temperature(rows, targets)


def test_reliability_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.0, 1.0]])
    found = reliability(p, np.array([0, 0, 1, 1]), bins=5)
    assert found.rows.tolist() == [0, 0, 0, 1, 3]
    assert found.confidence.round(6).tolist() == [0, 0, 0, 0.6, 0.9]
    assert found.accuracy.round(6).tolist() == [0, 0, 0, 1, 0.666667]
