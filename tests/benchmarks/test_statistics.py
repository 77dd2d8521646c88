"""The statistics benchmark: what it calls missed, and that its parts run on a small problem."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.datasets import load_iris

from crossfade.benchmarks import ensemble_statistics, statistics
from crossfade.benchmarks.problems import Problem, problems

GOOD: dict[str, Any] = {
    "problems": 10,
    "worst_loss_vs_best_member": 0.01,
    "mean_loss_vs_uniform": -0.1,
    "useless_member_weight": 0.0,
    "cascade_accuracy_drop": 0.0,
    "cascade_cost_cut": 0.5,
    "aa_runs": 2_000,
    "aa_false_alarm_rate": 0.05,
    "power_5pt": 0.8,
}


def test_bars_that_are_just_reached() -> None:
    assert statistics.missed(GOOD) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("problems", 9),
        ("worst_loss_vs_best_member", 0.011),
        ("mean_loss_vs_uniform", 0.01),
        ("useless_member_weight", 0.03),
        ("cascade_accuracy_drop", 0.006),
        ("cascade_cost_cut", 0.49),
        ("aa_runs", 1_999),
        ("aa_false_alarm_rate", 0.051),
        ("power_5pt", 0.79),
    ],
)
def test_a_bar_that_is_missed_is_named(key: str, value: float) -> None:
    assert [line.split()[0] for line in statistics.missed({**GOOD, key: value})] == [key]


def test_there_are_ten_problems_of_a_thousand_rows() -> None:
    rows = {problem.name: len(problem.labels) for problem in problems()}

    assert sum(n >= ensemble_statistics.ENOUGH_ROWS for n in rows.values()) >= 10


def test_weights_on_one_problem() -> None:
    found = ensemble_statistics.learned(Problem("iris", *load_iris(return_X_y=True)), repetitions=1)

    assert 0 < found["loss"] < 0.2
    assert found["vs_uniform"] < 0
    assert found["useless_weight"] < 0.02
    assert sum(found["chosen"].values()) == 10


def test_a_cascade_saves_half() -> None:
    found = ensemble_statistics.cascade(splits=5)

    assert found["cascade_cost_cut"] > 0.5
    assert found["cascade_accuracy_drop"] < 0.005


def test_the_others_opinion_is_the_best_rule_for_a_label_that_is_missing() -> None:
    found = ensemble_statistics.missing_labels()

    assert min(found, key=lambda name: found[name]) == "missing_label_loss_fill_in"
