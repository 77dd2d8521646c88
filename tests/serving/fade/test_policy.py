"""What happens next in a fade: a table of decisions, and laws for any evidence."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.serving.fade.evidence import StepEvidence
from crossfade.serving.fade.policy import Decision, Position, Status, decide, follow
from tests.serving.fade.observed import PLAN, observed

SHADOW, SPLIT, ALL = range(3)
START_S = 1_000.0
RANK = {"roll_back": 0, "stay": 1, "advance": 2}


def decided(
    evidence: StepEvidence,
    step: int = SHADOW,
    after_s: float = 100,
    status: Status = Status.RUNNING,
) -> Decision:
    return decide(PLAN, Position(status, step, START_S), evidence, START_S + after_s)


GOOD = {"pairs": 4000, "alone": 40_000}
TABLE: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "nothing was seen": ({}, SHADOW, "stay", "0 of 1000 samples"),
    "as good, without labels": (GOOD, SHADOW, "advance", "within its margin"),
    "too few": ({"pairs": 999}, SHADOW, "stay", "999 of 1000 samples"),
    "they disagree": ({**GOOD, "agreement": 0.8}, SHADOW, "roll_back", "agreement"),
    "they agree hardly enough": ({**GOOD, "agreement": 0.91}, SHADOW, "stay", "agreement"),
    "they disagree, but labels say better": (
        {**GOOD, "agreement": 0.8, "labels": (50, 800, 150)},
        SHADOW,
        "advance",
        "within its margin",
    ),
    "they agree, but labels say worse": (
        {**GOOD, "labels": (150, 800, 50)},
        SHADOW,
        "roll_back",
        "quality",
    ),
    "few labels that say much worse": (
        {**GOOD, "labels": (60, 100, 0)},
        SHADOW,
        "roll_back",
        "quality",
    ),
    "labels that say too little": ({**GOOD, "labels": (60, 480, 60)}, SHADOW, "stay", "quality"),
    "failures": ({**GOOD, "candidate_errors": 0.05}, SHADOW, "roll_back", "errors"),
    "slower": ({**GOOD, "slower": 1.5}, SHADOW, "roll_back", "latency_p50"),
    "a little slower": ({**GOOD, "slower": 1.1}, SHADOW, "advance", "within its margin"),
    "a split without labels": (GOOD, SPLIT, "advance", "within its margin"),
    "a split, labels say worse": (
        {**GOOD, "labels_alone": (200, 3750, 50)},
        SPLIT,
        "roll_back",
        "quality",
    ),
    "a split, labels say the same": (
        {**GOOD, "labels_alone": (125, 39_500, 375)},
        SPLIT,
        "advance",
        "within its margin",
    ),
    "a split that is not the plan's": ({**GOOD, "share": 0.3}, SPLIT, "stay", "traffic_share"),
    "a split, failures": (
        {**GOOD, "candidate_errors": 0.05},
        SPLIT,
        "roll_back",
        "errors",
    ),
    "a split does not count pairs": ({"pairs": 4000}, SPLIT, "stay", "0 of 1000 samples"),
    "the last step": (GOOD, ALL, "advance", "within its margin"),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name: str) -> None:
    given_, step, action, said = TABLE[name]
    found = decided(observed(**given_), step)
    assert (found.action, said in found.reason) == (action, True), found.reason


def test_the_numbers_are_in_the_decision() -> None:
    found = decided(observed(**GOOD, candidate_errors=0.05))
    errors = next(f for f in found.findings if f.metric == "errors")
    assert errors.verdict == "harmful"
    assert errors.bounds.estimate == pytest.approx(0.05)
    assert errors.bounds.count == 4000
    assert 0 < errors.bounds.lower < 0.05 < errors.bounds.upper
    assert errors.alpha == PLAN.alpha_each
    assert re.search(r"errors is between 0\.0\d+ and 0\.0\d+ after 4000", found.reason)


def test_a_paused_fade_is_still_guarded() -> None:
    assert decided(observed(**GOOD), status=Status.PAUSED).action == "stay"
    worse = observed(**GOOD, candidate_errors=0.05)
    assert decided(worse, status=Status.PAUSED).action == "roll_back"


@pytest.mark.parametrize("status", [Status.PROMOTED, Status.ROLLED_BACK])
def test_a_fade_that_is_over_stays_over(status: Status) -> None:
    assert decided(observed(**GOOD, candidate_errors=0.5), status=status).action == "stay"


ALLOWED = {
    Status.RUNNING: {"advance", "roll_back", "pause", "promote"},
    Status.PAUSED: {"roll_back", "resume", "promote"},
    Status.PROMOTED: {"roll_back", "retire"},
    Status.RETIRED: set(),
    Status.ROLLED_BACK: set(),
}


# -- laws -----------------------------------------------------------------------------------------

COUNT = st.integers(0, 3_000)


@st.composite
def evidences(draw: st.DrawFn) -> StepEvidence:
    found = StepEvidence()
    for mean in (
        *(found.quality_pairs, found.quality_alone, found.agreement),
        *(found.errors_pairs, found.errors_alone, found.alone),
    ):
        mean.counts = np.array([draw(COUNT) for _ in mean.values])
    for each in found.latency:
        each.update(np.repeat(draw(st.floats(1, 100)), draw(COUNT)))
    return found


LABELLED: dict[str, Any] = {"labels": (40, 900, 60), "labels_alone": (125, 39_500, 375)}
GOOD_EVIDENCE = st.sampled_from([{}, LABELLED]).map(lambda labels: observed(4000, 40_000, **labels))
STEPS = st.integers(0, 2)
TIMES = st.floats(-1e6, 1e6)


@settings(max_examples=60)
@given(evidences(), STEPS, TIMES, st.sampled_from(Status))
def test_it_never_advances_before_the_minimum_time_and_samples(
    evidence: StepEvidence, step: int, after_s: float, status: Status
) -> None:
    found = decided(evidence, step, after_s, status)
    if found.action == "advance":
        assert status is Status.RUNNING
        assert after_s >= PLAN.steps[step].min_time_s
        assert evidence.samples(PLAN.steps[step].mirrored) >= PLAN.steps[step].min_samples
        assert all(f.verdict == "good" for f in found.findings)


@settings(max_examples=60)
@given(evidences(), STEPS, TIMES, st.sampled_from([Status.RUNNING, Status.PAUSED]))
def test_harm_rolls_back_at_once_whatever_the_time(
    evidence: StepEvidence, step: int, after_s: float, status: Status
) -> None:
    found = decided(evidence, step, after_s, status)
    harmful = any(f.verdict == "harmful" for f in found.findings)
    assert harmful == (found.action == "roll_back")
    assert repr(found) == repr(decided(evidence, step, after_s, status)), "the same once more"


@settings(max_examples=60)
@given(st.one_of(evidences(), GOOD_EVIDENCE), STEPS, st.data())
def test_worse_evidence_never_gives_a_bolder_decision(
    evidence: StepEvidence, step: int, data: Any
) -> None:
    worse = StepEvidence.read(evidence.plain())
    # Towards the worse end: fewer better and more worse pairs, more failures, slower answers.
    for mean, better, bad in (
        (worse.quality_pairs, 2, 0),
        (worse.agreement, 1, 0),
        (worse.errors_pairs, 0, 2),
        (worse.quality_alone, 1, 0),
        (worse.errors_alone, 1, 2),
    ):
        moved = data.draw(st.integers(0, int(mean.counts[better])))
        mean.counts[better] -= moved
        mean.counts[bad] += moved
    worse.latency[1].counts = np.roll(worse.latency[1].counts, data.draw(st.integers(0, 300)))
    before, after = decided(evidence, step), decided(worse, step)
    assert RANK[after.action] <= RANK[before.action], (before.reason, after.reason)


@given(
    STEPS, st.sampled_from(Status), st.sampled_from([*RANK, "pause", "resume", "promote", "retire"])
)
def test_a_fade_moves_one_step_up_or_ends(step: int, status: Status, action: Any) -> None:
    before = Position(status, step, START_S)
    if action not in ALLOWED[status]:
        with pytest.raises(FailedPrecondition, match="is not possible"):
            follow(PLAN, before, action, START_S + 5)
        return
    after = follow(PLAN, before, action, START_S + 5)
    assert after.step == (2 if action == "promote" else min(step + (action == "advance"), 2))
    assert (after.step_started_s == START_S + 5) == (action in {"advance", "promote"})
    if status is Status.PROMOTED:
        assert after.status is {"retire": Status.RETIRED}.get(action, Status.ROLLED_BACK)
    if after.step == step and action == "advance":
        assert after.status is Status.PROMOTED


@pytest.mark.parametrize(
    ("worse", "seen"),
    [({"candidate_errors": 0.05}, 400), ({"slower": 2.0}, 200), ({"agreement": 0.5}, 200)],
)
def test_a_bad_candidate_is_rolled_back_long_before_the_minimum_samples(
    worse: Any, seen: int
) -> None:
    assert decided(observed(seen, **worse), after_s=0.5).action == "roll_back"


def test_the_estimate_of_nothing_is_not_a_number() -> None:
    assert all(math.isnan(f.bounds.estimate) for f in decided(StepEvidence()).findings)


# -- whole fades, by simulation -------------------------------------------------------------------


def looked_at(errors: list[float], seed: int) -> list[str]:
    """The action at each look; 100 pairs come between two, with the candidate's rate of errors."""
    rng, evidence, actions = np.random.default_rng(seed), StepEvidence(), []
    for rate in errors:
        failed = np.stack([rng.random(100) < 0.02, rng.random(100) < rate], axis=-1)
        evidence.observe_pairs(rng.random(100) < 0.98, failed, rng.lognormal(2, 0.5, (100, 2)))
        actions.append(decided(evidence, after_s=0).action)
    return actions


def test_equal_members_are_left_in_peace() -> None:
    assert sum("roll_back" in looked_at([0.02] * 20, seed) for seed in range(30)) <= 1


def test_a_candidate_that_gets_worse_in_the_middle_of_a_step_is_rolled_back() -> None:
    for seed in range(5):
        actions = looked_at([0.02] * 50 + [0.12] * 20, seed)
        assert "roll_back" not in actions[:50]
        assert "roll_back" in actions[50:]
