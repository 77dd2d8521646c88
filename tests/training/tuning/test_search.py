"""Spaces, Gaussian processes, and searches that begin with what is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training.tuning.gaussian_process import GaussianProcess
from crossfade.training.tuning.space import Choice, Number, Space
from crossfade.training.tuning.transfer import Belief, Finished, Suggester, portfolio
from crossfade.training.tuning.tuner import OptunaTuner, search

SPACE = Space(
    {
        "rate": Number(1e-5, 1, log=True),
        "layers": Number(1, 9, integer=True),
        "kind": Choice(("sgd", "adamw", "lion")),
    }
)
LINE = Space({"x": Number(0, 1), "y": Number(0, 1)})


def bowl(values: Any, x: float = 0.3, y: float = 0.7) -> float:
    return (float(values["x"]) - x) ** 2 + (float(values["y"]) - y) ** 2


def known(count: int = 30, sign: float = 1.0) -> list[Finished]:
    random = np.random.default_rng(3)
    points = [dict(zip("xy", map(float, random.random(2)), strict=True)) for _ in range(count)]
    return [Finished(point, sign * bowl(point)) for point in points]


@given(st.floats(1e-5, 1), st.integers(1, 9), st.sampled_from(["sgd", "adamw", "lion"]))
def test_a_space_and_its_cube(rate: float, layers: int, kind: str) -> None:
    values = {"rate": rate, "layers": layers, "kind": kind}
    point = SPACE.to_unit(values)
    assert point.shape == (SPACE.width,) == (5,)
    assert np.all((point >= 0) & (point <= 1))
    back = SPACE.from_unit(point)
    assert back["rate"] == pytest.approx(rate)
    assert (back["layers"], back["kind"]) == (layers, kind)
    assert SPACE.snap(point[None])[0] == pytest.approx(point)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_every_point_of_the_cube_has_values_within_bounds(point: list[float]) -> None:
    values = SPACE.from_unit(np.array(point))
    assert 1e-5 <= float(values["rate"]) <= 1
    assert values["layers"] in range(1, 10)
    assert values["kind"] in ("sgd", "adamw", "lion")


def test_nothing_is_made_up_of_another_runs_values() -> None:
    theirs = {"learningRate": 3.0, "layers": 2.5, "optimizer": "adam", "kind": "rmsprop"}
    adopted = SPACE.adopt(theirs, {"learningRate": "rate"})
    assert adopted.values == {"rate": 1.0, "layers": 2}
    assert adopted.provenance == {
        "rate": "clipped",
        "layers": "clipped",
        "kind": "missing",
        "optimizer": "unknown",
    }
    assert not adopted.complete
    assert SPACE.adopt({}).values == {}
    assert set(SPACE.adopt({}).provenance.values()) == {"missing"}
    assert SPACE.adopt({"rate": float("nan"), "layers": True}).values == {}


def test_what_cannot_be_searched() -> None:
    for broken in (
        lambda: Number(1, 1),
        lambda: Number(0, 1, log=True),
        lambda: Number(0, math.inf),
        lambda: Choice(("a", "a")),
        lambda: Space({}),
    ):
        with pytest.raises(InvalidArgument):
            broken()
    with pytest.raises(InvalidArgument, match="'kind' has no value"):
        SPACE.to_unit({"rate": 1, "layers": 1})
    with pytest.raises(InvalidArgument, match="no option of 'kind'"):
        SPACE.to_unit({"rate": 1, "layers": 1, "kind": "adam"})


def test_a_process_predicts_as_scikit_learns() -> None:
    random = np.random.default_rng(0)
    x, at = random.random((20, 2)), random.random((50, 2))
    y = np.sin(5 * x[:, 0]) + x[:, 1]
    ours = GaussianProcess(x, y)
    kernel = Matern(ours._lengths, "fixed", nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=ours._noise + 1e-8, optimizer=None)
    theirs.fit(x, (y - y.mean()) / y.std())
    mean, deviation = theirs.predict(at, return_std=True)
    assert ours.predict(at)[0] == pytest.approx(mean, abs=1e-6)
    assert ours.predict(at)[1] == pytest.approx(deviation**2, abs=1e-6)
    for index in (0, 7):
        rest = np.arange(20) != index
        theirs.fit(x[rest], ours.values[rest])
        mean, deviation = theirs.predict(x[[index]], return_std=True)
        left_mean, left_variance = ours.left_out()
        assert left_mean[index] == pytest.approx(mean[0], abs=1e-5)
        noisy = deviation[0] ** 2 + ours._noise + 1e-8
        assert left_variance[index] == pytest.approx(noisy, abs=1e-5)
    drawn = ours.sample(at[:5], 20000, random)
    assert drawn.mean(0) == pytest.approx(ours.predict(at[:5])[0], abs=0.05)
    assert drawn.var(0) == pytest.approx(ours.predict(at[:5])[1], abs=0.05)


def test_a_process_of_one_point_and_of_equal_values() -> None:
    for values in ([1.0], [2.0, 2.0, 2.0]):
        points = np.linspace(0, 1, len(values))[:, None]
        mean, variance = GaussianProcess(points, np.array(values)).predict(points)
        assert np.all(np.isfinite(mean))
        assert np.all(variance > 0)


def test_a_friend_is_trusted_and_an_opposite_is_not() -> None:
    trials = known(8)
    for sign, expected in ((1.0, True), (-1.0, False)):
        suggester = Suggester(LINE, [known(30, sign)])
        suggester.suggest(trials[:7])
        assert (suggester.weights[0] > 0) == expected
        assert sum(suggester.weights) == pytest.approx(1)
        suggester.suggest(trials)
        assert suggester.weights == (0, 1), "every third time it is not asked"


def test_a_crowd_of_strangers_does_not_dilute() -> None:
    random = np.random.default_rng(5)
    strangers = [
        [Finished(trial.values, float(random.normal())) for trial in known(20)] for _ in range(12)
    ]
    suggester = Suggester(LINE, [*strangers, known(30)])
    suggester.suggest(known(13))
    assert sum(suggester.weights[:12]) < 0.2


def test_the_best_of_each_source_by_turns_and_no_two_alike() -> None:
    first = [Finished({"x": 0.1, "y": 0.1}, 1.0), Finished({"x": 0.11, "y": 0.1}, 2.0)]
    second = [Finished({"x": 0.9, "y": 0.9}, 5.0), Finished({"x": 0.5, "y": 0.5}, 6.0)]
    found = portfolio(LINE, [first, second], 3)
    assert [point["x"] for point in found] == pytest.approx([0.1, 0.9, 0.5])
    assert portfolio(LINE, [], 3) == []


def test_warm_begins_where_cold_ends() -> None:
    cold, warm = OptunaTuner(LINE), OptunaTuner(LINE, sources=[known(30)])
    assert search(warm, bowl, 3).loss <= search(cold, bowl, 10).loss + 1e-3


def test_an_opposite_costs_little() -> None:
    misled = OptunaTuner(LINE, sources=[known(30, -1.0)])
    assert search(misled, bowl, 20).loss < 1e-3


def test_a_belief_is_followed_first_and_then_forgotten() -> None:
    belief = Belief({"x": 0.9, "y": 0.1}, width=0.05)
    suggester = Suggester(LINE, belief=belief)
    first = suggester.suggest([])
    assert (first["x"], first["y"]) == (pytest.approx(0.9, abs=0.1), pytest.approx(0.1, abs=0.1))
    tuner = OptunaTuner(LINE, belief=belief)
    assert search(tuner, bowl, 25).loss < 1e-3, "the rest of the space stays open"


def test_it_suggests_the_same_again_and_never_a_point_twice() -> None:
    def run(seed: int) -> list[Any]:
        tuner = OptunaTuner(SPACE, seed=seed)
        search(tuner, lambda v: float(v["layers"]) + (v["kind"] == "sgd"), 12)
        return [tuple(trial.values.values()) for trial in tuner.finished()]

    first = run(1)
    assert run(1) == first
    assert run(2) != first
    assert len(set(first)) == 12


def test_a_study_on_disk_goes_on(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    search(OptunaTuner(LINE, storage=storage, sources=[known()]), bowl, 4)
    again = OptunaTuner(LINE, storage=storage, sources=[known()])
    assert len(again.finished()) == 4
    search(again, bowl, 1)
    assert len(again.finished()) == 5


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=2, max_size=9))
def test_any_finite_losses_do(losses: list[float]) -> None:
    trials = [Finished(trial.values, loss) for trial, loss in zip(known(9), losses, strict=False)]
    values = Suggester(LINE, [known(5)]).suggest(trials)
    assert all(0 <= float(value) <= 1 for value in values.values())
