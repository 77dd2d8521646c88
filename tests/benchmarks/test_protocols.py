"""The protocols' benchmark: ratios are medians of ratios, and variants say what h2load sends."""

from __future__ import annotations

import pytest

from crossfade.benchmarks.protocols import TARGETS, Sample, ratios


def repetition(grpc_us: float, slow: float = 1.0) -> dict[str, Sample]:
    """One in which the whole machine was ``slow``."""
    return {
        "addsub grpc": Sample(1000 / slow, 1, slow),
        "addsub tfs": Sample(900 / slow, 1, 1.05 * slow),
        "cnn grpc": Sample(100 / slow, 1, grpc_us * slow),
        "cnn grpc_shm": Sample(120 / slow, 1, grpc_us * 0.9 * slow),
        "cnn http_binary": Sample(80 / slow, 1, grpc_us * 1.2 * slow),
        "cnn tfs": Sample(99 / slow, 1, grpc_us * 1.1 * slow),
    }


def test_a_slow_machine_changes_no_ratio() -> None:
    found = ratios([repetition(100), repetition(100, slow=3), repetition(100, slow=7)])
    assert found == pytest.approx(
        {"tfs_vs_v2": 1.1, "shm_cpu_vs_message": 0.9, "http_binary_vs_grpc": 1.25}
    )
    assert found.keys() == TARGETS.keys()


def test_one_disturbed_window_changes_no_median() -> None:
    disturbed = repetition(100)
    disturbed["cnn tfs"] = Sample(1, 1, 10_000)
    assert ratios([repetition(100), disturbed, repetition(100)])["tfs_vs_v2"] == pytest.approx(1.1)
