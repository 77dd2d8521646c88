"""Weights of a mixture: the laws, a slow greedy selection, and SciPy's optimum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize

from crossfade.ensemble.mixtures import best_single, convex, duality_gap, greedy, uniform
from crossfade.ensemble.scores import FLOOR

SOLVERS = [uniform, best_single, greedy, convex]
TRUTHS = st.tuples(st.integers(1, 6), st.integers(1, 40)).flatmap(
    lambda shape: hnp.arrays(
        np.float64, shape, elements=st.one_of(st.floats(FLOOR, 1), st.sampled_from([FLOOR, 1.0]))
    )
)
Solver = Callable[[np.ndarray], np.ndarray]


def loss(truth: np.ndarray, weights: np.ndarray) -> float:
    return float(-np.log(weights @ truth).mean())


@pytest.mark.parametrize("solve", SOLVERS)
@given(truth=TRUTHS)
def test_on_the_simplex(solve: Solver, truth: np.ndarray) -> None:
    weights = solve(truth)

    assert weights.shape == (len(truth),)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-9)


@given(TRUTHS)
def test_convex_is_the_best(truth: np.ndarray) -> None:
    weights = convex(truth)

    assert duality_gap(truth, weights) < 1e-6
    for other in (uniform, best_single, greedy):
        assert loss(truth, weights) <= loss(truth, other(truth)) + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_convex_is_scipys_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.beta(2, 1, size=(5, 300))

    found = optimize.minimize(
        lambda w: loss(truth, w),
        uniform(truth),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )

    assert convex(truth) == pytest.approx(found.x, abs=2e-3)
    assert loss(truth, convex(truth)) <= found.fun + 1e-7


@given(TRUTHS, st.randoms(use_true_random=False))
def test_convex_does_not_mind_the_order(truth: np.ndarray, rnd: object) -> None:
    order = list(range(len(truth)))
    rnd.shuffle(order)  # type: ignore[attr-defined]

    assert loss(truth[order], convex(truth[order])) == pytest.approx(
        loss(truth, convex(truth)), abs=1e-6
    )


@given(TRUTHS)
def test_a_duplicate_does_not_change_the_mixture(truth: np.ndarray) -> None:
    doubled = np.concatenate([truth, truth[:1]])

    assert loss(doubled, convex(doubled)) == pytest.approx(loss(truth, convex(truth)), abs=1e-6)


def test_a_member_that_is_worse_everywhere_gets_nothing() -> None:
    good = np.random.default_rng(0).uniform(0.5, 1, size=(2, 500))
    truth = np.concatenate([good, good[:1] / 4])

    assert convex(truth)[2] < 1e-5
    assert greedy(truth)[2] == 0


def slow_greedy(truth: np.ndarray, rounds: int) -> tuple[list[int], list[float]]:
    picks: list[int] = []
    losses: list[float] = []
    for _ in range(rounds):
        tried = [
            float(-np.log(np.mean([truth[i] for i in [*picks, m]], axis=0)).mean())
            for m in range(len(truth))
        ]
        picks.append(int(np.argmin(tried)))
        losses.append(min(tried))
    return picks, losses


@pytest.mark.parametrize("seed", range(10))
def test_greedy_takes_the_slow_ones_picks(seed: int) -> None:
    truth = np.random.default_rng(seed).beta(2, 1, size=(4, 50))

    picks, losses = slow_greedy(truth, 25)

    size = int(np.argmin(losses)) + 1
    expected = np.bincount(picks[:size], minlength=4) / size
    assert np.array_equal(greedy(truth, rounds=25), expected)


def test_ties_go_to_the_first() -> None:
    truth = np.full((3, 4), 0.5)

    assert best_single(truth).tolist() == [1, 0, 0]
    assert greedy(truth).tolist() == [1, 0, 0]
