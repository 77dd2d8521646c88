from __future__ import annotations

import json
from typing import Any

import pytest

from crossfade.ensemble.gate import GateReport, Measure
from crossfade.ensemble.solved import SolvedGate
from crossfade.runtimes.core.errors import CrossfadeError

REPORT = GateReport(
    0.9, Measure.MARGIN, 800, (1.0, 0.3), 4.0, 10.0, 0.95, 0.96, 0.001, 0.004, 5.0, 0.05
)
STAGES = ("small", "large")


def test_json_and_back() -> None:
    solved = SolvedGate(REPORT, {"small": 1.5, "large": 0.7})
    assert SolvedGate.from_json(solved.to_json(), STAGES) == solved


def test_a_plain_report_has_no_temperatures() -> None:
    assert SolvedGate.from_json(REPORT.to_json(), STAGES) == SolvedGate(REPORT)


@pytest.mark.parametrize(
    ("change", "stages", "says"),
    [
        ({}, ("small", "middle", "large"), "for 2 stages; the cascade has 3"),
        ({}, ("small", "huge"), r"stages \['large', 'small'\], not \['huge', 'small'\]"),
        ({"temperatures": {"small": 0.0, "large": 1.0}}, STAGES, "positive"),
        ({"temperatures": {"small": float("nan"), "large": 1.0}}, STAGES, "positive"),
        ({"temperatures": [1.0, 2.0]}, STAGES, "not a report of a gate"),
        ({"measure": "mood"}, STAGES, "not a report of a gate"),
    ],
)
def test_what_cannot_be_meant(change: dict[str, Any], stages: tuple[str, ...], says: str) -> None:
    text = SolvedGate(REPORT, {"small": 1.5, "large": 0.7}).to_json()
    with pytest.raises(CrossfadeError, match=says):
        SolvedGate.from_json(json.dumps({**json.loads(text), **change}), stages)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "\ufffd{"])
def test_no_report(text: str) -> None:
    with pytest.raises(CrossfadeError, match="not a report of a gate"):
        SolvedGate.from_json(text, STAGES)
