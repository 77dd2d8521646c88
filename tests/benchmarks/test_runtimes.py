"""The ratios that the benchmark of the runtimes reports."""

from __future__ import annotations

import pytest

from crossfade.benchmarks import runtimes


def test_the_headline() -> None:
    def sizes(bare: float, served: float) -> dict[str, dict[str, float]]:
        return {
            "b8": {
                "bare_runs_per_s": bare,
                "served_runs_per_s": served,
                "vs_bare": served / bare,
            }
        }

    found = {"onnx": sizes(10, 9), "onnx_int8": sizes(40, 18), "savedmodel": sizes(4, 4)}
    assert runtimes.headline(found) == {
        "onnx_b8_vs_bare": 0.9,
        "onnx_int8_b8_vs_bare": 0.45,
        "savedmodel_b8_vs_bare": 1.0,
        "onnx_int8_b8_vs_float": 2.0,
    }


def test_the_command_line() -> None:
    options = runtimes.parse_options(["--quick", "--formats", "onnx,tflite"])
    assert (options.formats, options.turns) == (["onnx", "tflite"], 1)
    with pytest.raises(SystemExit):
        runtimes.parse_options(["--formats", "coreml"])
