"""Evidence of a step: what counts where, and that its state is the same after a restart."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.fade.evidence import CANDIDATE, PRIMARY, StepEvidence

PAIR = st.tuples(
    st.booleans(), st.tuples(st.booleans(), st.booleans()), st.tuples(*2 * [st.floats(0, 1e5)])
)
PAIRS = st.lists(PAIR, max_size=20)


def evidence_of(pairs: list[Any]) -> StepEvidence:
    found = StepEvidence()
    found.observe_pairs([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs])
    return found


@given(PAIRS)
def test_what_failed_has_no_answer_and_no_latency(pairs: list[Any]) -> None:
    found = evidence_of(pairs)
    answered = [agreed for agreed, failed, _ in pairs if not any(failed)]
    assert found.agreement.counts.tolist() == [answered.count(False), answered.count(True)]
    for member in (PRIMARY, CANDIDATE):
        assert found.latency[member].counts.sum() == sum(not p[1][member] for p in pairs)
    assert found.errors_pairs.counts[2] == sum(p[1] == (False, True) for p in pairs)
    assert found.errors_pairs.counts[0] == sum(p[1] == (True, False) for p in pairs)
    assert found.samples(mirrored=True) == len(pairs)


@given(PAIRS, PAIRS)
def test_replicas_add_up_in_any_order(one: list[Any], two: list[Any]) -> None:
    left, right = evidence_of(one), evidence_of(two)
    left.add(evidence_of(two))
    right.add(evidence_of(one))
    assert left.plain() == right.plain() == evidence_of(one + two).plain()


@given(PAIRS, st.lists(st.booleans(), max_size=9))
def test_it_survives_being_written_and_read(pairs: list[Any], failed: list[bool]) -> None:
    found = evidence_of(pairs)
    found.observe_alone(CANDIDATE, failed, [3.0] * len(failed))
    again = StepEvidence.read(json.loads(json.dumps(found.plain())))
    assert again.plain() == found.plain()
    assert again.samples(mirrored=False) == len(failed)
    assert again.errors_alone.counts.tolist() == [0, failed.count(False), failed.count(True)]


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
def test_a_latency_that_is_none_is_refused_and_nothing_added(wrong: float) -> None:
    found = StepEvidence()
    with pytest.raises(InvalidArgument):
        found.observe_pairs([True, True], [[False] * 2] * 2, [[1.0, 1.0], [1.0, wrong]])
    assert found.plain() == StepEvidence().plain()


@pytest.mark.parametrize("broken", [{}, {"quality_pairs": [1, 2]}, {"latency": [{"99999": 1}, {}]}])
def test_what_is_no_evidence_is_refused(broken: Any) -> None:
    plain = {**StepEvidence().plain(), **broken} if broken else {}
    with pytest.raises(InvalidArgument):
        StepEvidence.read(plain)
