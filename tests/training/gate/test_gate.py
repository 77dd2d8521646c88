"""The gate finds what was planted, is quiet about clean data, and decides by its policy.

How often it does either, over many draws: ``make bench-gate``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from crossfade.benchmarks import gate_statistics
from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.training.gate import noise_features, policy
from crossfade.training.gate.duplicates import duplicates
from crossfade.training.gate.gate import study_data
from crossfade.training.gate.report import Report
from crossfade.training.transforms.table import Table

ROWS = 600


@pytest.fixture(scope="module")
def clean() -> Report:
    return gate_statistics.study(gate_statistics.clean(np.random.default_rng(5), ROWS), 0)


def test_clean_data_pass(clean: Report) -> None:
    assert gate_statistics.blocking(clean) == set()
    assert clean.verdict == "undecided"
    assert clean.value.low > clean.guess
    uses = next(f for f in clean.findings if f.check == "max_noise_features").numbers["columns"]
    assert {uses[c]["decision"] for c in ("x0", "group")} == {"useful"}
    assert "useful" not in {uses[c]["decision"] for c in ("x3", "x4")}


@pytest.mark.parametrize("case", gate_statistics.CASES)
def test_what_was_planted_is_found(case: str) -> None:
    plant, check = gate_statistics.CASES[case]
    # The benchmark's first draw; how many of its draws are found is what it measures.
    report = gate_statistics.study(plant(np.random.default_rng([0, 0])), 0)
    assert check in gate_statistics.blocking(report)
    assert report.verdict == "fix data"
    assert check in report.because


def test_rows_to_look_at_are_the_planted_ones() -> None:
    rng = np.random.default_rng(2)
    drawn = gate_statistics.clean(rng, ROWS, slope=20.0)
    wrong = gate_statistics.with_wrong_labels(rng, drawn, 0.1)
    before, after = np.array(drawn.columns["y"]), np.array(wrong.columns["y"])
    flipped = np.flatnonzero(before != after) + 1  # rows count from 1
    shown = gate_statistics.study(wrong, 0).review["target unlike all that is known"]
    assert np.isin(shown[:20], flipped).mean() > 0.8


def test_a_report_goes_through_json(clean: Report) -> None:
    document = json.loads(json.dumps(clean.to_dict(), allow_nan=False))
    assert document["verdict"] == "undecided"
    assert clean.lines()[0] == "verdict: undecided"


@pytest.mark.parametrize(
    ("goal", "verdict"), [(0.55, "deploy AutoML"), (0.93, "go custom"), (0.9999, None)]
)
def test_the_goal_decides(goal: float, verdict: str | None) -> None:
    drawn = gate_statistics.clean(np.random.default_rng(5), ROWS)
    rules = policy.load()
    if verdict is None:  # nobody gets near it: what the data say does not suffice
        rules = rules.model_copy(update={"fix_data_below": 0.95})
        verdict = "fix data"
    columns = {n: v for n, v in drawn.columns.items() if n != "split"}
    report = study_data(Table.of(columns), "y", "classification", rules, goal=goal)
    assert report.verdict == verdict
    assert report.progress is not None
    assert report.progress.low <= report.progress.value <= report.progress.high


def test_a_goal_below_guessing_is_an_error() -> None:
    drawn = gate_statistics.clean(np.random.default_rng(5), 150)
    with pytest.raises(InvalidArgument, match="no better than guessing"):
        study_data(drawn.table(), "y", "classification", policy.load(), goal=0.3)


def test_few_rows_and_few_of_a_class_block() -> None:
    table = Table.of({"x": range(40), "y": ["a"] * 39 + ["b"]})
    report = study_data(table, "y", "classification", policy.load())
    assert {"min_rows", "min_rows_per_class"} <= gate_statistics.blocking(report)
    some = Table.of({"x": range(120), "y": ["a", "b", ""] * 40})
    report = study_data(some, "y", "classification", policy.load())
    assert "max_missing_target" in gate_statistics.blocking(report)
    assert report.rows == (80, 120)


def test_copies_are_counted_by_hand() -> None:
    table = Table.of(
        {"id": ["a", "b", "c", "d", "e"], "x": ["1", "1", "2", "2", "3"], "z": [""] * 5}
    )
    target = np.array([0, 0, 0, 1, 1])
    test = np.array([False, True, False, False, False])
    found = duplicates(table, target, test, regression=False)
    assert found.repeated.value == 1 / 5
    assert found.conflicting is not None
    assert found.conflicting.value == 2 / 5
    assert found.test_in_training is not None
    assert found.test_in_training.value == 1
    assert found.rows.tolist() == [1, 2, 3]


def test_decisions_are_corrected_for_all_columns() -> None:
    decide = noise_features._decide
    assert decide(np.array([24, 0, 12]), 24) == ["useful", "noise", "open"]
    # 18 of 24 is significant alone (p = 0.011) and not among twenty.
    assert decide(np.array([18]), 24) == ["useful"]
    assert decide(np.array([18] + [12] * 19), 24) == ["open"] * 20
    assert noise_features._at_least(18, 24) == pytest.approx(0.0113, abs=1e-4)
    assert math.isclose(noise_features._at_least(0, 24), 1)


def test_the_policy_is_changed_by_a_file(tmp_path: Path) -> None:
    own = tmp_path / "ours.yaml"
    own.write_text("min_rows: 7\n")
    assert policy.load(own).min_rows == 7
    assert policy.load(own).max_rows == policy.load().max_rows
    for text, says in (
        ("min_row: 7", "min_rows"),
        ("max_rows: many", "max_rows"),
        ("[1]", "no YAML object"),
        ("{", "no YAML object"),
        ("deploy_from: 2", "deploy_from"),
    ):
        own.write_text(text)
        with pytest.raises(InvalidArgument, match=says):
            policy.load(own)
    with pytest.raises(NotFound):
        policy.load(tmp_path / "none.yaml")
