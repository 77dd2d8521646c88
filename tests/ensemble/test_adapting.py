"""Weights that follow the truth: on the simplex, within bounds, replayable, frozen in time."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.ensemble.adapting import (
    Event,
    Settings,
    Setup,
    State,
    at_least,
    begin,
    replay,
    resumed,
    step,
)
from crossfade.ensemble.claims import claims_of, pack
from crossfade.ensemble.scores import FLOOR
from crossfade.runtimes.core.errors import InvalidArgument

DAY_S = 86_400.0
PLAIN = Settings(0.05, 200, 1.0, 0.01, 0.15, 0.01)
COLD = dataclasses.replace(PLAIN, tolerance=10.0)  # never freezes
probability = st.floats(0, 1)


def setup(*fitted: float, reference: float | None = None, using: Settings = PLAIN) -> Setup:
    names = tuple(f"m{place}" for place in range(len(fitted)))
    return Setup("pair", 1, names, ("a", "b"), fitted, reference, using)


@st.composite
def lives(draw: st.DrawFn) -> tuple[Setup, list[Event]]:
    members = draw(st.integers(2, 5))
    using = Settings(
        draw(st.floats(1e-4, 1)),
        draw(st.integers(10, 20)),
        draw(st.floats(0.01, 1)),
        draw(st.floats(0.001, 1 / members)),
        draw(st.floats(0.01, 1)),
        draw(st.floats(0.001, 0.5)),
    )
    raw = draw(st.lists(st.floats(0.001, 1), min_size=members, max_size=members))
    made = setup(
        *(value / sum(raw) for value in raw),
        reference=draw(st.none() | st.floats(0, 3)),
        using=using,
    )
    claim = st.tuples(*[probability] * members)
    one = st.builds(Event, st.just("update"), claim, st.floats(0, 5 * DAY_S))
    resume = st.builds(Event, st.just("resume"), st.just(()), st.just(0.0))
    return made, draw(st.lists(one | one | one | resume, max_size=60))


@settings(max_examples=60)
@given(lives())
def test_weights_stay_on_the_simplex_and_within_their_bounds(
    life: tuple[Setup, list[Event]],
) -> None:
    made, events = life
    using = made.settings
    states = list(replay(made, events))
    for before, after in itertools.pairwise(states):
        assert math.isclose(math.fsum(after.weights), 1, abs_tol=1e-9)
        assert min(after.weights) >= using.min_weight - 1e-12
        if not after.frozen:
            moved = max(abs(w - s) for w, s in zip(after.weights, after.since, strict=True))
            assert moved <= using.max_step + 1e-12
        if before.frozen and after.frozen:
            assert after == before, "a frozen state stays as it is"
        assert after.day >= before.day


@settings(max_examples=60)
@given(lives(), st.integers(0, 60))
def test_a_replay_is_the_life_to_the_bit_wherever_it_was_written_down(
    life: tuple[Setup, list[Event]], stop: int
) -> None:
    made, events = life
    made_again = Setup.from_json(made.to_json())
    assert (made_again, made_again.digest) == (made, made.digest)
    state = begin(made)
    for number, event in enumerate(events):
        if number == stop:  # a restart
            state = State.from_json(state.to_json())
        resumes = event.action == "resume"
        state = resumed(state) if resumes else step(made.settings, state, event.claims, event.at_s)
    *_, last = replay(made_again, events)
    assert last.to_json() == state.to_json()


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda values: sum(values) > 1e-6),
    st.floats(0.001, 1),
)
def test_raised_weights_keep_the_order_and_the_proportions_of_the_others(
    values: list[float], part: float
) -> None:
    least = part / len(values)
    found = at_least(values, least)
    assert math.isclose(math.fsum(found), 1, abs_tol=1e-9)
    assert min(found) >= least * (1 - 1e-9)
    free = [(v, w) for v, w in zip(values, found, strict=True) if w > least * (1 + 1e-6)]
    ratios = [w / v for v, w in free]
    assert all(math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios)
    assert sorted(found) == [w for _, w in sorted(zip(values, found, strict=True))]


def planted(seed: int, truths: int, right: np.ndarray) -> np.ndarray:
    """Probabilities of the true class of members that are right so often, [truths, M]."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.75, 0.95, right.shape)
    return np.where(rng.random(right.shape) < right, sure, 1 - sure)


def losses(states: list[State], claims: np.ndarray) -> np.ndarray:
    weights = np.array([state.weights for state in states[: len(claims)]])
    return -np.log((weights * claims).sum(axis=1))


@pytest.mark.parametrize("seed", range(3))
def test_the_regret_bound_holds_and_fixed_weights_are_beaten_after_a_change(seed: int) -> None:
    truths, change = 2_000, 800
    right = np.empty((truths, 2))
    right[:change], right[change:] = (0.92, 0.75), (0.55, 0.9)
    claims = planted(seed, truths, right)
    made = setup(0.9, 0.1, using=COLD)
    states = list(replay(made, [Event("update", tuple(row), 0.0) for row in claims.tolist()]))
    live = losses(states, claims)
    fixed = -np.log(claims @ np.array(begin(made).weights))
    assert live[change:].mean() < fixed[change:].mean() - 0.1
    grid = np.linspace(0.01, 0.99, 99)
    mixes = -np.log(claims @ np.stack([grid, 1 - grid]))  # [truths, 99]
    first, second = mixes[:change].sum(axis=0), mixes[change:].sum(axis=0)
    best = first.min() + second.min()
    moved = abs(grid[first.argmin()] - grid[second.argmin()])
    least, rate = COLD.min_weight, COLD.rate
    bound = (1 + moved) * math.log(1 / least) / rate + rate * truths / (8 * least**2)
    assert live.sum() - best <= bound
    assert live.sum() - best < 0.03 * truths, "and in fact it is far below it"


def test_truths_in_another_order_are_another_life_and_all_of_them_count() -> None:
    claims = planted(1, 300, np.full((300, 2), (0.6, 0.9)))
    made = setup(0.5, 0.5, using=COLD)
    forward = [Event("update", tuple(row), 0.0) for row in claims.tolist()]
    *_, one = replay(made, forward)
    *_, other = replay(made, reversed(forward))
    assert one.weights != other.weights, "the weights follow the order in which truths come"
    assert min(one.weights[1], other.weights[1]) > 0.7, "to the better member in any order"


def frozen_after(claims: np.ndarray, using: Settings, reference: float | None) -> int | None:
    made = setup(0.5, 0.5, reference=reference, using=using)
    state = begin(made)
    for number, row in enumerate(claims.tolist()):
        state = step(using, state, row, 0.0)
        if state.frozen:
            return number
    return None


def test_a_drift_freezes_soon_and_goes_back_to_weights_that_were_good() -> None:
    right = np.full((3_000, 2), 0.9)
    right[2_500:] = 0.4
    claims = planted(7, 3_000, right)
    found = frozen_after(claims, PLAIN, None)
    assert found is not None
    assert 2_500 < found < 2_600
    states = list(
        replay(
            setup(0.5, 0.5),
            [Event("update", tuple(row), 0.0) for row in claims[: found + 1].tolist()],
        )
    )
    assert states[-1].weights == states[found].good == states[2_400].weights
    again = resumed(states[-1])
    assert not again.frozen
    assert again.weights == states[-1].weights
    assert again.reference is None, "what comes now is what is expected"


def test_without_a_drift_it_freezes_no_more_often_than_is_stated() -> None:
    """At the worst that is allowed: losses are exactly the reference and the tolerance."""
    runs, looks = 120, 300
    using = dataclasses.replace(PLAIN, alpha=0.1, window=1_000_000, rate=1e-9)
    rng = np.random.default_rng(3)
    rate = 0.2  # of wrong answers
    good, bad = 0.9, 0.1
    mean = -(1 - rate) * math.log(good) - rate * math.log(bad)
    alarms = 0
    for _ in range(runs):
        claims = np.repeat(np.where(rng.random(looks) < rate, bad, good)[:, None], 2, axis=1)
        alarms += frozen_after(claims, using, mean - using.tolerance) is not None
    # 25 or more of 120 runs with a chance of 0.1 each come once in 3,000 tries.
    assert 0 < alarms < 25


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="min_weight"):
        begin(setup(0.5, 0.5, using=dataclasses.replace(PLAIN, min_weight=0.6)))


@given(st.integers(1, 5), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_claims_are_kept_short_and_lose_no_probability(
    members: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    claims = rng.dirichlet(np.full(classes, 0.1), members).astype(np.float32)
    text = pack(claims)
    assert len(text) < 6_000
    found = np.array([claims_of(text, place) for place in range(classes)]).T
    assert np.allclose(found.sum(axis=1), 1, atol=1e-3)
    best = int(claims.max(axis=0).argmax())
    assert np.allclose(found[:, best], claims[:, best], rtol=1e-5, atol=FLOOR)
