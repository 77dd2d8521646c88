"""How long it is waited before a call is made again, and how many may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.remote.retrying import Budget, pause_s

CHANCES = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10_000), CHANCES)
def test_a_pause_is_jittered_and_bounded(attempt: int, chance: float) -> None:
    whole = min(2.0, 0.05 * 2 ** min(attempt, 16))
    assert whole / 2 <= pause_s(attempt, chance) <= whole


@given(CHANCES)
def test_a_pause_doubles(chance: float) -> None:
    assert pause_s(1, chance) == 2 * pause_s(0, chance)


@given(st.lists(st.booleans(), max_size=400))
def test_retries_are_a_tenth_of_what_succeeds(events: list[bool]) -> None:
    budget, taken, succeeded = Budget(), 0, 0
    for success in events:
        if success:
            budget.succeeded()
            succeeded += 1
        else:
            taken += budget.take()
        assert taken <= 10 + succeeded / 10 + 1e-6


def test_a_server_that_always_fails_is_soon_not_asked_again() -> None:
    budget = Budget()
    assert [budget.take() for _ in range(12)] == [True] * 10 + [False] * 2
