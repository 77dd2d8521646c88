"""Sticky choices that nothing but the weights moves, and the test of their shares."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crossfade.ensemble.split import Split, bucket_of, sample_ratio_p_value
from crossfade.runtimes.core.errors import FailedPrecondition

KEYS = [f"user-{number}" for number in range(4000)]


def chosen(weights: tuple[int, ...], name: str = "flowers") -> list[int]:
    split, rng = Split(name, weights), random.Random(0)
    return [split.choose(key, rng) for key in KEYS]


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.text(min_size=1))
def test_a_ramp_never_takes_a_key_back(one: int, other: int, key: str) -> None:
    low, high = sorted((one, other))
    rng = random.Random(0)
    before = Split("flowers", (10_000 - low, low)).choose(key, rng)
    after = Split("flowers", (10_000 - high, high)).choose(key, rng)

    assert after >= before


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 3000), st.text(min_size=1))
def test_a_growing_share_takes_keys_from_the_primary_alone(
    other: int, share: int, more: int, key: str
) -> None:
    rng = random.Random(0)
    before = Split("flowers", (10_000 - other - share, other, share)).choose(key, rng)
    grown = Split("flowers", (10_000 - other - share - more, other, share + more))

    assert grown.choose(key, rng) == before or (before == 0 and grown.choose(key, rng) == 2)


@pytest.mark.parametrize("weights", [(9900, 100), (5000, 5000), (5000, 3000, 2000), (0, 0, 10_000)])
def test_shares_come_true(weights: tuple[int, ...]) -> None:
    got = chosen(weights)
    counts = [got.count(member) for member in range(len(weights))]

    assert sample_ratio_p_value(counts, weights) > 1e-3
    assert all(weight or not count for count, weight in zip(counts, weights, strict=True))


def test_two_ensembles_split_independently() -> None:
    one, other = chosen((5000, 5000)), chosen((5000, 5000), "fruits")
    both = [one[i] * 2 + other[i] for i in range(len(KEYS))]

    assert sample_ratio_p_value([both.count(cell) for cell in range(4)], (2500,) * 4) > 1e-3


def test_buckets_are_a_promise() -> None:
    # A change of these moves every user of every running split.
    assert [bucket_of("flowers", key) for key in ("a", "user-1", "\u00fc", "\ud800")] == [
        4741,
        8261,
        7928,
        3659,
    ]


def test_another_process_chooses_the_same() -> None:
    program = (
        "import random\nfrom crossfade.ensemble.split import Split\n"
        "split = Split('flowers', (7000, 3000))\n"
        "print([split.choose(f'user-{i}', random.Random()) for i in range(100)])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == str(chosen((7000, 3000))[:100])


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_the_generator_decides(key: str | None) -> None:
    split, rng = Split("flowers", (7000, 3000)), random.Random(5)
    got = [split.choose(key, rng) for _ in range(4000)]

    assert sample_ratio_p_value([got.count(0), got.count(1)], split.weights) > 1e-3
    again = random.Random(5)
    assert got == [split.choose(key, again) for _ in range(4000)]


@pytest.mark.parametrize("weights", [(), (5000,), (5000, 5001), (-1, 10_001)])
def test_weights_are_whole_basis_points(weights: tuple[int, ...]) -> None:
    with pytest.raises(FailedPrecondition, match="basis points"):
        Split("flowers", weights)


def test_the_ratio_test_against_scipy() -> None:
    assert sample_ratio_p_value([520, 480], (5000, 5000)) == pytest.approx(
        stats.chisquare([520, 480]).pvalue
    )
    assert sample_ratio_p_value([300, 320, 380], (3000, 3000, 4000)) == pytest.approx(
        stats.chisquare([300, 320, 380], [300, 300, 400]).pvalue
    )
    assert sample_ratio_p_value([97, 3], (9900, 100)) == pytest.approx(
        stats.binomtest(3, 100, 0.01).pvalue
    )


def test_the_ratio_test_of_few_or_none() -> None:
    assert sample_ratio_p_value([0, 0], (5000, 5000)) == 1
    assert sample_ratio_p_value([1, 0], (5000, 5000)) == 1
    assert sample_ratio_p_value([10, 0], (10_000, 0)) == 1
    assert sample_ratio_p_value([10, 1], (10_000, 0)) == 0
    assert sample_ratio_p_value([0, 5, 0], (9800, 100, 100)) < 1e-8


@pytest.mark.parametrize("weights", [(9900, 100), (9800, 100, 100), (5000, 5000)])
@pytest.mark.parametrize("requests", [12, 200, 3000])
def test_false_alarms_are_as_rare_as_stated(weights: tuple[int, ...], requests: int) -> None:
    rng = random.Random(3)
    runs, alarms = 600, 0
    for _ in range(runs):
        drawn = rng.choices(range(len(weights)), weights, k=requests)
        counts = [drawn.count(member) for member in range(len(weights))]
        alarms += sample_ratio_p_value(counts, weights) <= 0.05

    assert stats.binomtest(alarms, runs, 0.06, alternative="greater").pvalue > 1e-4


def test_a_skew_of_one_percent_is_seen() -> None:
    assert sample_ratio_p_value([50_500, 49_500], (5000, 5000)) < 0.01
