"""The GPU benchmark: what needs no GPU of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from crossfade.benchmarks.gpu import errors, report, setups
from crossfade.benchmarks.gpu_server import Load, summary
from crossfade.benchmarks.gpu_sessions import measure_ways, relative_error
from crossfade.benchmarks.models import write_model
from crossfade.benchmarks.workspace import Workspace
from crossfade.serving.config.model_config import ModelConfig


def test_a_window_counts_by_its_median_and_an_answer_by_its_worst() -> None:
    windows = [
        {"rps": 10.0, "relative_error": 0.1},
        {"rps": 90.0, "relative_error": 0.3},
        {"rps": 20.0, "relative_error": 0.2},
    ]
    assert summary(windows) == {"rps": [20.0, 10.0, 90.0], "relative_error": 0.3}


def test_an_error_is_found_wherever_it_stands() -> None:
    results = {
        "ways": {"8": {"ms": {"run": [1, 1, 1]}, "relative_error": {"run": 0.1, "bound": 0.2}}},
        "servers": {"cuda": {"1 rows": {"rps": [1, 1, 1], "relative_error": 0.3}}},
    }
    assert sorted(errors(results)) == [0.1, 0.2, 0.3]


def test_an_error_is_relative_to_the_largest_score() -> None:
    expected = np.array([[-4, 2]], np.float32)
    assert relative_error(expected + 1, expected) == pytest.approx(0.25)
    assert math.isnan(relative_error(expected * np.float32(math.nan), expected))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_setup_is_a_models_configuration(device: str) -> None:
    for setup in setups(device):
        config = ModelConfig.model_validate(yaml.safe_load(setup.yaml()))
        assert config.instances == setup.instances
        assert config.options == {"execution_providers": [setup.provider]}


def test_every_way_gives_the_same_scores(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_model(workspace, "cnn")
    ways = measure_ways(workspace.model_file("cnn"), "cpu", (1, 2), repetitions=1, budget_s=0)
    assert set(ways) == {"1", "2"}
    assert max(errors(ways)) == pytest.approx(0, abs=1e-5)
    servers = {"cpu": {Load(1, 1).name: {"rps": [5, 4, 6], "p50_ms": [1], "p99_ms": [2]}}}
    text = report({"ways": ways, "servers": servers})
    assert {"run", "session", "bound", "cpu_1_thread"} <= set(text.split())
    assert "5.0 requests/s (4.0 to 6.0)" in text
