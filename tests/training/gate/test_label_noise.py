"""Confident learning by hand, and what the surest rows say."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.training.gate import label_noise


def test_the_confident_joint_by_hand() -> None:
    """Thresholds are the classes' own means: 0.7 of the first, 0.65 of the second."""
    target = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    first = np.array([0.9, 0.9, 0.8, 0.2, 0.1, 0.2, 0.3, 0.8])
    found = label_noise.classification(target, np.stack([first, 1 - first], axis=1), 1.0)
    # Confidently 0 given 0: three; 1 given 0: the fourth. 1 given 1: three; 0 given 1: the last.
    np.testing.assert_allclose(found.joint, [[3 / 8, 1 / 8], [1 / 8, 3 / 8]])
    assert found.estimate.value == pytest.approx(0.25)
    assert sorted(found.rows.tolist()) == [3, 7]


def test_a_class_that_nobody_is_sure_of_keeps_its_share() -> None:
    target = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.95, 0.05], [0.6, 0.4]])
    found = label_noise.classification(target, probabilities, 1.0)
    assert found.joint is not None
    np.testing.assert_allclose(found.joint.sum(axis=1), [0.75, 0.25])
    assert found.surest is None  # four rows say nothing


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.25])
def test_the_surest_rows_estimate_the_noise(noise: float) -> None:
    """With probabilities that know the truth but not the flips."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 6000)
    sure = rng.uniform(0.4, 1.0, 6000)
    probabilities = np.full((6000, 3), 1.0) * ((1 - sure) / 2)[:, None]
    probabilities[np.arange(6000), truth] = sure
    flips = rng.random(6000) < noise
    target = np.where(flips, (truth + rng.integers(1, 3, 6000)) % 3, truth)
    found = label_noise.classification(target, probabilities, 0.2)
    assert found.surest is not None
    assert found.surest.low <= noise <= found.surest.high
    assert found.estimate.value == pytest.approx(noise, abs=0.03)
    if noise:
        assert flips[found.rows[: len(found.rows) // 2]].mean() > 0.9


def test_gross_errors_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=1000)
    wrong = target.copy()
    wrong[[3, 500]] += [100, -1000]
    found = label_noise.regression(wrong, (target + 0.1 * rng.normal(size=1000))[:, None])
    assert found.rows.tolist() == [500, 3]
    assert label_noise.regression(target, target[:, None]).estimate.value == 0
