"""The arithmetic of the ensemble benchmark, and that its two members share all but their heads."""

from __future__ import annotations

import threading

import onnx
import pytest

from crossfade.benchmarks import ensemble_pair, ensemble_servers, ensembles


def test_ratios_are_taken_round_by_round() -> None:
    rounds = ensembles.Rounds(
        {"a": [1.0, 20.0, 3.0], "b": [2.0, 10.0, 6.0]}, {"a": [4.0, 4.0, 4.0], "b": [2.0, 2.0, 2.0]}
    )
    assert rounds.ratio("a", "b") == {"wall": 0.5, "cpu": 2.0}
    assert rounds.medians()["b"] == {"wall_ms": 6.0, "cpu_ms": 2.0}


def test_every_thread_makes_every_call() -> None:
    made: list[int] = []
    found = ensembles.busy({"call": lambda: made.append(threading.get_ident())}, 0.001, 3)
    assert len(made) == 3 * 8 * len(found.wall_ms["call"])
    assert all(ms >= 0 for ms in found.cpu_ms["call"])


def test_bars() -> None:
    good = {"pair_vs_bare": 1.0, "fused_vs_unfused": 0.5, "pair_vs_triton": 2.0}
    assert ensembles.missed(good) == []
    bad = {"pair_vs_bare": 1.06, "shadow_p99_ratio": 1.2, "unfused_pair_vs_triton": 0.9}
    assert len(ensembles.missed(bad)) == 3
    assert ensembles.missed({}) == []


def test_throughput_beside_triton() -> None:
    def life(requests_per_s: float, cpu_ms: float) -> dict[str, float]:
        return {"requests_per_s": requests_per_s, "cpu_ms": cpu_ms}

    rows = {
        "triton": [life(100, 20), life(110, 22), life(90, 18)],
        "crossfade-fused": [life(210, 10)],
        "crossfade-unfused": [life(120, 16)],
    }
    assert ensemble_servers.ratios(rows) == pytest.approx(
        {
            "pair_vs_triton": 2.1,
            "pair_vs_triton_cpu": 2.0,
            "unfused_pair_vs_triton": 1.2,
            "unfused_pair_vs_triton_cpu": 1.25,
        }
    )
    assert ensemble_servers.ratios({**rows, "triton": []}) == {}


def test_the_pair_differs_in_its_heads_alone() -> None:
    one, other = (onnx.load_from_string(ensemble_pair.make_member(n)) for n in (0, 1))
    assert [n.op_type for n in one.graph.node] == [n.op_type for n in other.graph.node]
    pairs = zip(one.graph.initializer, other.graph.initializer, strict=True)
    different = {a.name for a, b in pairs if a.raw_data != b.raw_data}
    assert different == {"classifier_w", "classifier_b"}
