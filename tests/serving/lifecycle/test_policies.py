"""Which versions are wanted and the next step towards them: tables, and laws by simulation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.config.model_config import ModelConfig, VersionPolicy
from crossfade.serving.lifecycle.policies import (
    Action,
    Snapshot,
    State,
    next_action,
    wanted_versions,
)

START, LOADING, AVAILABLE, UNLOADING, END = State

# -- the next step ------------------------------------------------------------------------------


def snap(version: int, state: State, wanted: bool = True, files: str = "a") -> Snapshot:
    return Snapshot(version, files, state, wanted)


def load(version: int, files: str = "a") -> Action:
    return Action("load", version, files)


def unload(version: int, files: str = "a") -> Action:
    return Action("unload", version, files)


TABLE: dict[str, tuple[list[Snapshot], Action | None]] = {
    "nothing is there": ([], None),
    "one is to be loaded": ([snap(1, START)], load(1)),
    "the newest is loaded first": ([snap(1, START), snap(3, START), snap(2, START)], load(3)),
    "it loads": ([snap(1, LOADING)], None),
    "another is loaded meanwhile": ([snap(1, LOADING), snap(2, START)], load(2)),
    "it serves": ([snap(1, AVAILABLE)], None),
    "it is not wanted": ([snap(1, START, False)], None),
    "nothing is wanted any more": ([snap(1, AVAILABLE, False)], unload(1)),
    "the oldest goes first": (
        [snap(2, AVAILABLE, False), snap(1, AVAILABLE, False)],
        unload(1),
    ),
    "the successor is loaded before": ([snap(1, AVAILABLE, False), snap(2, START)], load(2)),
    "the successor still loads": ([snap(1, AVAILABLE, False), snap(2, LOADING)], None),
    "the successor serves": ([snap(1, AVAILABLE, False), snap(2, AVAILABLE)], unload(1)),
    "the successor failed": ([snap(1, AVAILABLE, False), snap(2, END)], None),
    "one of two successors failed": (
        [snap(1, AVAILABLE, False), snap(2, END), snap(3, AVAILABLE)],
        unload(1),
    ),
    "going back: the older is loaded before": (
        [snap(2, AVAILABLE, False), snap(1, START)],
        load(1),
    ),
    "new files of the same version are loaded before": (
        [snap(1, AVAILABLE, False, "old"), snap(1, START, files="new")],
        load(1, "new"),
    ),
    "new files of the same version serve": (
        [snap(1, AVAILABLE, False, "old"), snap(1, AVAILABLE, files="new")],
        unload(1, "old"),
    ),
    "new files of the same version failed, though another version serves": (
        [snap(1, AVAILABLE, False, "old"), snap(1, END, files="new"), snap(2, AVAILABLE)],
        None,
    ),
    "what is being unloaded is left alone": (
        [snap(1, UNLOADING, False), snap(2, AVAILABLE)],
        None,
    ),
    "wanted again while it is being unloaded": (
        [snap(1, UNLOADING), snap(1, START)],
        load(1),
    ),
    "what has failed is not tried again": ([snap(1, END)], None),
}


@pytest.mark.parametrize(("snapshots", "action"), TABLE.values(), ids=TABLE.keys())
def test_the_next_step(snapshots: list[Snapshot], action: Action | None) -> None:
    for order in itertools.permutations(snapshots):
        assert next_action(order) == action


SNAPSHOTS = st.lists(
    st.builds(
        Snapshot,
        version=st.integers(1, 4),
        fingerprint=st.sampled_from("ab"),
        state=st.sampled_from(State),
        wanted=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda s: (s.version, s.fingerprint),
)


def available(snapshots: Sequence[Snapshot]) -> set[tuple[int, str]]:
    return {(s.version, s.fingerprint) for s in snapshots if s.state is AVAILABLE}


class World:
    """Takes the steps: each load passes or fails as was drawn, each unload ends."""

    def __init__(self, snapshots: Sequence[Snapshot], fails: set[tuple[int, str]]) -> None:
        self.snapshots = list(snapshots)
        self.fails = fails
        self.steps: list[Action] = []

    def settle(self) -> None:
        """Ends what was going on before, and takes all steps."""
        for index, one in enumerate(self.snapshots):
            if one.state is LOADING:
                self._move(index, self._loaded(one))
            elif one.state is UNLOADING:
                self._move(index, END)
        while action := next_action(self.snapshots):
            self._take(action)
            assert len(self.steps) <= len(self.snapshots), "it goes round in circles"

    def _take(self, action: Action) -> None:
        before = available(self.snapshots)
        index, one = next(
            (i, s)
            for i, s in enumerate(self.snapshots)
            if (s.version, s.fingerprint) == (action.version, action.fingerprint)
        )
        self.steps.append(action)
        if action.kind == "load":
            assert one.state is START
            assert one.wanted
            self._move(index, LOADING)
            others = next_action(self.snapshots)
            assert others is None or others.kind == "load", "nothing goes while its heir loads"
            self._move(index, self._loaded(one))
        else:
            assert one.state is AVAILABLE
            assert not one.wanted
            self._move(index, UNLOADING)
            if any(s.wanted for s in self.snapshots):
                assert before
                assert available(self.snapshots), "nobody is left who could answer"

    def _loaded(self, one: Snapshot) -> State:
        return END if (one.version, one.fingerprint) in self.fails else AVAILABLE

    def _move(self, index: int, state: State) -> None:
        self.snapshots[index] = dataclasses.replace(self.snapshots[index], state=state)


FAILS = st.sets(st.tuples(st.integers(1, 4), st.sampled_from("ab")))


@given(snapshots=SNAPSHOTS, fails=FAILS)
def test_from_anywhere_it_ends_and_always_leaves_somebody_to_answer(
    snapshots: list[Snapshot], fails: set[tuple[int, str]]
) -> None:
    world = World(snapshots, fails)
    world.settle()
    assert not any(s.wanted and s.state in {START, LOADING} for s in world.snapshots)
    steps = list(world.steps)
    world.settle()
    assert world.steps == steps, "once it is there it stays"


@given(snapshots=SNAPSHOTS)
def test_without_failures_exactly_what_is_wanted_serves(snapshots: list[Snapshot]) -> None:
    fresh = [
        dataclasses.replace(s, state=START) if s.wanted and s.state in {END, UNLOADING} else s
        for s in snapshots
    ]
    world = World(fresh, set())
    world.settle()
    wanted = {(s.version, s.fingerprint) for s in fresh if s.wanted}
    unwanted_loading = {
        (s.version, s.fingerprint) for s in fresh if s.state is LOADING and not s.wanted
    }
    assert available(world.snapshots) - unwanted_loading == wanted


@given(snapshots=SNAPSHOTS)
def test_if_every_load_fails_all_who_served_still_do(snapshots: list[Snapshot]) -> None:
    settled = [s for s in snapshots if s.state in {START, AVAILABLE, END}]
    before = available([s for s in settled if not s.wanted])
    if any(s.wanted and s.state is AVAILABLE for s in settled):
        return
    world = World(settled, {(v, f) for v in range(1, 5) for f in "ab"})
    world.settle()
    if any(s.wanted for s in settled):
        assert available(world.snapshots) == before


@given(
    snapshots=st.lists(st.from_type(Snapshot), max_size=8, unique_by=lambda s: s.version),
    data=st.data(),
)
def test_it_has_no_state_and_no_order(snapshots: list[Snapshot], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(snapshots))
    assert next_action(snapshots) == next_action(shuffled) == next_action(tuple(snapshots))


# -- which are wanted ---------------------------------------------------------------------------

VERSIONS = st.sets(st.integers(1, 30), max_size=8)
LABELS = st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 30))
POLICIES = st.one_of(
    st.just(VersionPolicy()),
    st.builds(VersionPolicy, latest=st.integers(1, 10)),
    st.just(VersionPolicy(all=True)),
    st.builds(VersionPolicy, specific=st.lists(st.integers(1, 30), max_size=4).map(tuple)),
)


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (VersionPolicy(), {9}),
        (VersionPolicy(latest=1), {9}),
        (VersionPolicy(latest=2), {9, 5}),
        (VersionPolicy(latest=99), {1, 3, 5, 9}),
        (VersionPolicy(all=True), {1, 3, 5, 9}),
        (VersionPolicy(specific=(3, 4, 1)), {1, 3}),
        (VersionPolicy(specific=()), set()),
    ],
)
def test_policies(policy: VersionPolicy, wanted: set[int]) -> None:
    config = ModelConfig(version_policy=policy)
    assert wanted_versions(config, [3, 9, 1, 5]) == wanted


def test_a_version_with_a_label_is_served_whatever_the_policy_says() -> None:
    config = ModelConfig(labels={"stable": 3, "gone": 4})
    assert wanted_versions(config, [1, 3, 9]) == {3, 9}


@given(present=VERSIONS, policy=POLICIES, labels=LABELS)
def test_laws_of_what_is_wanted(
    present: set[int], policy: VersionPolicy, labels: dict[str, int]
) -> None:
    config = ModelConfig(version_policy=policy, labels=labels)
    plain = wanted_versions(ModelConfig(version_policy=policy), present)
    wanted = wanted_versions(config, present)
    assert wanted <= present
    assert wanted == plain | (set(labels.values()) & present)
    if policy.specific is None and present:
        assert max(present) in wanted
    if policy.latest:
        assert len(plain) == min(policy.latest, len(present))
        assert all(chosen > left for chosen in plain for left in present - plain)
