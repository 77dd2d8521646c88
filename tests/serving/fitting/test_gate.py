from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossfade.ensemble.gate import Measure
from crossfade.ensemble.members import Known, Member
from crossfade.ensemble.solved import SolvedGate
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.fitting import gate
from crossfade.serving.fitting.gate import Budget
from crossfade.serving.fitting.sample import Sample
from crossfade.serving.lifecycle import routing
from tests.ensemble.live import FakeLive, echo

ABC, CBA = ("a", "b", "c"), ("c", "b", "a")
SECTION = config.Cascade.model_validate(
    {
        "kind": "cascade",
        "scores": "logits",
        "stages": [{"model": "small"}, {"model": "large"}],
        "gate": "gate.json",
    }
)


def known() -> list[Known]:
    live = FakeLive(small=echo(ABC), large=echo(CBA))
    names = ("small", "large")
    return [Known(Member(n, ModelRef(n)), live.metadata(ModelRef(n))) for n in names]


def sample(rows: int = 2000) -> Sample:
    """A good large stage, and a small one that is three times too sure of itself."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, rows)
    small = 6 * (2 * np.eye(3)[truth] + rng.normal(size=(rows, 3)))
    large = 6 * np.eye(3)[truth] + rng.normal(size=(rows, 3))
    scores = (np.float32(small), np.float32(large[:, ::-1]))
    return Sample(("small", "large"), scores, truth, (0.5, 4.0), 0, {}, rows)


def test_the_served_cascade_does_what_the_report_says(tmp_path: Path) -> None:
    drawn = sample()
    solved = gate.solve(SECTION, known(), drawn, Budget(harm=0.01))
    report = solved.report
    assert report.threshold is not None
    assert report.harm_bound <= 0.01 + 1e-6
    assert report.rows == 1600
    assert report.expected_cost < report.full_cost == 4.0
    assert solved.temperatures["small"] > 2  # it was too sure
    (tmp_path / "gate.json").write_text(solved.to_json())
    served = routing.cascade(SECTION, "e", tmp_path)([(one.name, one) for one in known()]).cascade
    assert [one.temperature for one in served.scores] == list(solved.temperatures.values())
    sure = served.probabilities(0, drawn.scores[0]).max(axis=1) >= report.threshold
    assert 1 - sure.mean() == pytest.approx(report.reach[1], abs=0.02)


def test_the_rows_behind_temperatures_solve_nothing() -> None:
    drawn = sample()
    order = np.random.default_rng(0).permutation(drawn.rows)
    before = gate.solve(SECTION, known(), drawn, Budget(harm=0.01))
    small, large = (scores.copy() for scores in drawn.scores)
    small[order[400:]] = small[order[400:]] + np.float32(0.3) * large[order[400:], ::-1]
    changed = Sample(drawn.names, (small, large), drawn.truth, drawn.row_ms, 0, {}, 0)
    after = gate.solve(SECTION, known(), changed, Budget(harm=0.01))
    assert after.temperatures == before.temperatures
    assert after.report != before.report


def test_a_budget_of_cost() -> None:
    budget = Budget(cost=3.0, costs=(1.0, 10.0), measure=Measure.MARGIN)
    report = gate.solve(SECTION, known(), sample(), budget).report
    assert report.measure is Measure.MARGIN
    assert report.cost_bound <= 3.0
    with pytest.raises(CrossfadeError, match=r"the budget is 0\.5"):
        gate.solve(SECTION, known(), sample(), Budget(cost=0.5, costs=(1.0, 10.0)))
    with pytest.raises(CrossfadeError, match="2 stages need as many costs, not 3"):
        gate.solve(SECTION, known(), sample(), Budget(cost=0.5, costs=(1.0, 10.0, 2.0)))


@pytest.mark.parametrize("harm", [0.005, 0.01, 0.05, 0.3])
def test_the_least_rows_can_prove_the_budget(harm: float) -> None:
    least = Budget(harm=harm).least_rows
    truth = np.arange(least) % 3
    sure = np.float32(20 * np.eye(3)[truth])
    names = ("small", "large")
    perfect = Sample(names, (sure, sure[:, ::-1]), truth, (1.0, 2.0), 0, {}, 0)
    report = gate.solve(SECTION, known(), perfect, Budget(harm=harm)).report
    assert report.threshold is not None
    fewer = Sample(names, (sure[:-6], sure[:-6, ::-1]), truth[:-6], (1.0, 2.0), 0, {}, 0)
    if harm <= 0.05:
        report = gate.solve(SECTION, known(), fewer, Budget(harm=harm)).report
        assert report.threshold is None


def test_a_stage_is_calibrated_on_labels_that_it_knows() -> None:
    live = FakeLive(small=echo(("a", "b")), large=echo(CBA))
    names = ("small", "large")
    members = [Known(Member(n, ModelRef(n)), live.metadata(ModelRef(n))) for n in names]
    drawn = sample()
    half = Sample(
        names, (drawn.scores[0][:, :2], drawn.scores[1]), drawn.truth, (1.0, 2.0), 0, {}, 0
    )
    solved = gate.solve(SECTION, members, half, Budget(harm=0.05))
    rows = np.random.default_rng(0).permutation(drawn.rows)[:400]
    rows = rows[drawn.truth[rows] < 2]
    own = gate.fit_temperature(drawn.scores[0][rows, :2], drawn.truth[rows])
    assert solved.temperatures["small"] == pytest.approx(own, rel=0.05)
    assert SolvedGate.from_json(solved.to_json(), names) == solved
