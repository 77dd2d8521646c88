"""Pauses grow, are bounded, and are forgotten after a quiet time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.isolated.backoff import (
    FIRST_S,
    LONGEST_S,
    STEADY_S,
    next_failures,
    pause_s,
)


@given(st.integers(1, 10_000))
def test_pauses_never_shrink_and_are_bounded(failures: int) -> None:
    assert FIRST_S <= pause_s(failures) <= pause_s(failures + 1) <= LONGEST_S


@given(st.lists(st.floats(0, STEADY_S, exclude_max=True), min_size=1, max_size=30))
def test_each_early_end_counts(lives: list[float]) -> None:
    failures = 0
    for lived_s in lives:
        failures = next_failures(failures, lived_s)
    assert failures == len(lives)


@given(st.integers(0, 10_000), st.floats(STEADY_S, 1e9))
def test_a_worker_that_lived_long_begins_anew(failures: int, lived_s: float) -> None:
    assert pause_s(next_failures(failures, lived_s)) == FIRST_S
