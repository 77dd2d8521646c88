"""Confidence by hand, and the guarantees of the thresholds on many samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossfade.ensemble.gate import (
    THRESHOLDS,
    CascadeSample,
    GateReport,
    Measure,
    confidence,
    within_cost,
    within_harm,
)
from crossfade.ensemble.scores import softmax
from crossfade.runtimes.core.errors import InvalidArgument

SCORES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-30, 30, width=32))
)


def test_confidence_by_hand() -> None:
    p = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], np.float32)
    entropy = 1 + (0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2)) / np.log(3)

    assert confidence(p, Measure.MAXIMUM) == pytest.approx([0.5, 1, 1 / 3])
    assert confidence(p, Measure.MARGIN) == pytest.approx([0.2, 1, 0])
    assert confidence(p, Measure.ENTROPY) == pytest.approx([entropy, 1, 0], abs=1e-6)


@pytest.mark.parametrize("measure", Measure)
@given(logits=SCORES, data=st.data())
def test_confidence_is_a_share_and_minds_no_order(
    measure: Measure, logits: np.ndarray, data: st.DataObject
) -> None:
    p = softmax(logits)
    order = data.draw(st.permutations(range(p.shape[-1])))

    sure = confidence(p, measure)

    assert sure.dtype == np.float32
    assert sure.shape == p.shape[:-1]
    assert ((sure >= 0) & (sure <= 1 + 1e-6)).all()
    assert np.allclose(confidence(p[..., order], measure), sure, atol=1e-5)


def test_one_class_has_no_confidence() -> None:
    with pytest.raises(InvalidArgument, match="two classes"):
        confidence(np.ones((3, 1)), Measure.MARGIN)


def pair(rows: int, seed: int, *, good: float = 0.97) -> tuple[list[np.ndarray], np.ndarray]:
    """A cheap calibrated member, and one that is right with probability ``good``."""
    rng = np.random.default_rng(seed)
    sure = rng.beta(4, 0.25, rows) / 2 + 0.5
    labels = rng.integers(0, 2, rows)
    cheap_right = rng.random(rows) < sure
    good_right = rng.random(rows) < good

    def scores(right: np.ndarray, top: np.ndarray) -> np.ndarray:
        p = np.empty((rows, 2), np.float32)
        said = np.where(right, labels, 1 - labels)
        p[np.arange(rows), said], p[np.arange(rows), 1 - said] = top, 1 - top
        return p

    return [scores(cheap_right, sure), scores(good_right, np.full(rows, good))], labels


COSTS = (1.0, 10.0)


def test_a_row_is_answered_by_the_first_stage_that_is_sure() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], np.float32)
    q = np.array([[0.1, 0.9], [0.9, 0.1], [0.6, 0.4]], np.float32)
    last = np.array([[0.2, 0.8]] * 3, np.float32)
    sample = CascadeSample.of([p, q, last], np.array([1, 0, 1]), (1, 2, 4))

    assert sample.stage_of(0.8).tolist() == [0, 1, 2]
    assert sample.stage_of(0.0).tolist() == [0, 0, 0]
    assert sample.stage_of(1.0).tolist() == [2, 2, 2]
    assert sample.reached(0.8) == [3, 2, 1]
    assert sample.harmed(0.8) == 1  # row 0: the last stage would have been right


def test_cost_falls_and_harm_rises_as_the_threshold_falls() -> None:
    stages, labels = pair(2000, seed=0)
    sample = CascadeSample.of(stages, labels, COSTS)

    for low, high in itertools.pairwise(THRESHOLDS):
        assert low < high
        assert sample.reached(low)[1] <= sample.reached(high)[1]
        assert sample.harmed(low) >= sample.harmed(high)


def test_the_harm_stays_within_the_budget_as_often_as_promised() -> None:
    delta, budget = 0.1, 0.01
    everybody, truth = pair(100_000, seed=1)
    population = CascadeSample.of(everybody, truth, COSTS)
    broken = saved = 0
    for seed in range(100):
        stages, labels = pair(1500, seed=seed + 10)
        report = within_harm(CascadeSample.of(stages, labels, COSTS), budget, delta)
        assert report.harm_bound <= budget + 1e-6
        if report.threshold is not None:
            broken += population.harmed(report.threshold) / population.rows > budget
            saved += report.expected_cost < 0.9 * report.full_cost

    assert broken <= 100 * delta + 3 * np.sqrt(100 * delta * (1 - delta))
    assert saved > 75  # the guarantee is not bought by never stopping early


def test_the_cost_stays_within_the_budget_as_often_as_promised() -> None:
    delta, budget = 0.1, 6.0
    everybody, truth = pair(100_000, seed=2)
    population = CascadeSample.of(everybody, truth, COSTS)
    broken = 0
    spent = []
    for seed in range(100):
        stages, labels = pair(800, seed=seed + 10)
        report = within_cost(CascadeSample.of(stages, labels, COSTS), budget, delta)
        assert report.cost_bound <= budget
        assert report.threshold is not None
        reach = population.reached(report.threshold)[1] / population.rows
        broken += COSTS[0] + COSTS[1] * reach > budget
        spent.append(report.expected_cost)

    assert broken <= 100 * delta + 3 * np.sqrt(100 * delta * (1 - delta))
    assert np.mean(spent) > 0.8 * budget


def test_a_sample_that_proves_nothing_stops_nowhere() -> None:
    stages, labels = pair(100, seed=3)  # half a point needs 598 rows
    report = within_harm(CascadeSample.of(stages, labels, COSTS), 0.005)

    assert report.threshold is None
    assert report.reach == (1.0, 1.0)
    assert report.expected_cost == sum(COSTS)
    assert (report.harm, report.harm_bound) == (0.0, 0.0)
    assert report.accuracy == report.full_accuracy


def test_a_first_stage_that_is_never_wrong_answers_everything() -> None:
    labels = np.arange(1000) % 2
    perfect = np.eye(2, dtype=np.float32)[labels] * 0.6 + 0.2
    report = within_harm(CascadeSample.of([perfect, perfect], labels, COSTS), 0.005)

    assert report.threshold == 0.0
    assert report.expected_cost == COSTS[0]
    assert report.accuracy == 1.0


def test_the_report_goes_through_json() -> None:
    stages, labels = pair(2000, seed=4)
    sample = CascadeSample.of(stages, labels, COSTS, Measure.MARGIN)
    for report in (within_harm(sample, 0.01), within_harm(sample, 1e-5), within_cost(sample, 8)):
        assert GateReport.from_json(report.to_json()) == report
    with pytest.raises(InvalidArgument):
        GateReport.from_json("{}")


def test_what_is_refused() -> None:
    stages, labels = pair(50, seed=5)
    sample = CascadeSample.of(stages, labels, COSTS)

    with pytest.raises(InvalidArgument, match="two stages"):
        CascadeSample.of(stages[:1], labels, (1,))
    with pytest.raises(InvalidArgument, match="positive cost"):
        CascadeSample.of(stages, labels, (0, 1))
    with pytest.raises(InvalidArgument, match="each label"):
        CascadeSample.of(stages, labels[:-1], COSTS)
    with pytest.raises(InvalidArgument, match="shares between"):
        within_harm(sample, 0.0)
    with pytest.raises(InvalidArgument, match="the budget is"):
        within_cost(sample, 0.5)
