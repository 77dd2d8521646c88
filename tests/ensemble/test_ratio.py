"""Counts of who went where, in bounded memory."""

from __future__ import annotations

import random

from crossfade.ensemble.ratio import SampleRatio
from crossfade.ensemble.split import Split


def test_a_key_counts_once_and_a_request_without_one_each_time() -> None:
    ratio = SampleRatio((5000, 5000))
    for _ in range(100):
        ratio.add(1, "anna")
        ratio.add(0, None)

    assert ratio.counts() == [100, 1]


def test_of_more_keys_than_are_remembered_a_fair_sample_is() -> None:
    split, rng = Split("flowers", (9000, 1000)), random.Random(0)
    ratio = SampleRatio(split.weights, most=1000)
    for number in range(20_000):
        key = f"user-{number}"
        ratio.add(split.choose(key, rng), key)

    assert 400 < sum(ratio.counts()) <= 1000
    assert ratio.p_value() > 1e-4


def test_a_split_that_is_off_by_a_point_is_found() -> None:
    shares, rng = Split("flowers", (5100, 4900)), random.Random(0)
    ratio = SampleRatio((5000, 5000))
    for number in range(60_000):
        key = f"user-{number}"
        ratio.add(shares.choose(key, rng), key)

    assert ratio.p_value() < 1e-3
