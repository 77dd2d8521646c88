"""The decision on a part: shown to help only where the difference is beyond doubt."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.benchmarks.arr_coc_ablation import GROUPS, effect, precisions, verdict
from crossfade.training.arr_coc.metrics import average_precision


def planted(gain: float, by_seed: tuple[float, ...] = (0, 0, 0), noise: float = 0.002) -> dict:
    """Effects of a part that adds ``gain``, and to each seed something of its own."""
    rng = np.random.default_rng(1)
    without = 0.8 + rng.normal(0, 0.02, (3, 401))  # what pictures and seeds do to both
    with_part = without + gain + np.array(by_seed)[:, None] + rng.normal(0, noise, without.shape)
    return effect(with_part, without)


@pytest.mark.parametrize(
    ("trained", "held_out", "says"),
    [
        (planted(0.02), planted(0.02), "helps"),
        (planted(0.0), planted(0.02), "helps"),
        (planted(0.0), planted(0.0), "not shown to help"),
        (planted(0.02, noise=0.05), planted(0.0), "not shown to help"),
        (planted(0.02, by_seed=(0.03, 0.01, -0.04)), planted(0.0), "not shown to help"),
        (planted(-0.02), planted(0.0), "harms"),
        (planted(0.02), planted(-0.02), "helps some, harms others"),
    ],
)
def test_a_part_is_on_only_where_it_helps_beyond_doubt(
    trained: dict, held_out: dict, says: str
) -> None:
    assert verdict(dict(zip(GROUPS, (trained, held_out), strict=True))) == says


def test_the_interval_is_around_the_planted_difference() -> None:
    found = planted(0.02)
    assert found["lower"] < 0.02 < found["upper"]
    assert found["upper"] - found["lower"] < 0.01
    assert found["gain"] == pytest.approx(np.mean(found["by_seed"]))
    assert effect(np.ones((1, 3)), np.zeros((1, 3)))["lower"] == 1


def test_precisions_are_those_of_the_drawn_pictures() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, 5))
    truth = rng.random(logits.shape) < 0.4
    drawn = np.array([[1, 1, 1, 1], [2, 0, 1, 1]])
    found = precisions(logits, truth, [[0, 1], [2]], drawn)
    for column, rows in enumerate(([0, 1, 2, 3], [0, 0, 2, 3])):
        each = [average_precision(logits[rows][:, q], truth[rows][:, q]) for q in range(3)]
        assert found[:, column] == pytest.approx([np.mean(each[:2]), each[2]])
