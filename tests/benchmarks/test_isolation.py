"""The isolation benchmark: its bars, and that it measures at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossfade.benchmarks.isolation import added, main, missed


def test_what_is_added_is_told_by_the_medians() -> None:
    result = added([10, 10, 50], [11, 12, 13])
    assert (result["added_ms"], result["added_share"]) == (2, pytest.approx(0.2))
    assert len(missed(result)) == 2
    assert missed(added([10.0], [10.9])) == []
    assert len(missed(added([1.0], [1.5]))) == 1


def test_it_measures_and_keeps_the_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["--seconds", "0.5", "--json", str(file)]) in (0, 1)
    figures = json.loads(file.read_text())["cnn"]
    assert figures["calls"] > 0
    assert figures["isolated_p50_ms"] > 0
