"""Splits and shadows of models: who is asked what, and how answers of the others are changed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from crossfade.ensemble.comparison import Comparer
from crossfade.ensemble.keys import Key, KeySource
from crossfade.ensemble.members import Member
from crossfade.ensemble.mirror import Mirror
from crossfade.ensemble.model import Ensemble
from crossfade.ensemble.observing import Outcome, Pair
from crossfade.ensemble.plan import ANSWERED_BY
from crossfade.ensemble.routed import RoutedKind
from crossfade.ensemble.routing import Router, Shares
from crossfade.ensemble.split import Split
from crossfade.runtimes.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from crossfade.runtimes.core.model import InferRequest, ModelRef, TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, echo, ensemble, failing, request

ABC, CAB = ("a", "b", "c"), ("c", "a", "b")
ROW = [0.7, 0.2, 0.1]
USERS = [f"user-{number}" for number in range(40)]


class Told:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.alone: list[tuple[str, int, bool]] = []

    def observe_pair(self, pair: Pair) -> None:
        self.pairs.append(pair)

    def observe_alone(self, requests: Sequence[InferRequest], outcomes: Sequence[Outcome]) -> None:
        self.alone += [
            (request.id, outcome.member, outcome.failed)
            for request, outcome in zip(requests, outcomes, strict=True)
        ]


def split(*weights: int, observers: Sequence[Told] = ()) -> RoutedKind:
    names = ("one", "two", "three")[: len(weights)]
    key = Key(KeySource.PARAMETER, "user")
    router = Router("e", names, Shares(weights), key=key, observers=observers, rng=random.Random(0))
    return RoutedKind(router, all_answer=True)


def of_users() -> list[InferRequest]:
    return [request(ROW, parameters={"user": user}, id=user) for user in USERS]


def test_requests_for_one_member_travel_together_and_answers_keep_their_order() -> None:
    live = FakeLive(one=echo(ABC), two=echo(ABC))
    expected = [Split("e", (6000, 4000)).choose(user, random.Random()) for user in USERS]

    found = ensemble(split(6000, 4000), live).infer(of_users())

    said = [answered(one).parameters[ANSWERED_BY] for one in found]
    assert said == [("one", "two")[member] for member in expected]
    assert [len(model.calls) for model in live.models.values()] == [1, 1]
    assert [r.id for r in live.models["two"].calls[0]] == [
        user for user, member in zip(USERS, expected, strict=True) if member
    ]


def test_another_order_of_labels_does_not_show() -> None:
    live = FakeLive(one=echo(ABC), two=echo(CAB))

    (found,) = ensemble(split(0, 10_000), live).infer([request(ROW)])

    assert answered(found).outputs["scores"].tolist() == [pytest.approx([0.2, 0.1, 0.7])]


def test_a_failure_of_one_member_is_no_others() -> None:
    live = FakeLive(one=echo(ABC), two=failing(Unavailable("no"), ABC))
    told = Told()

    found = ensemble(split(6000, 4000, observers=[told]), live).infer(of_users())

    failed = [isinstance(one, Unavailable) for one in found]
    assert set(failed) == {True, False}
    by_id = {name: (member, fails) for name, member, fails in told.alone}
    assert [by_id[user] for user in USERS] == [(int(fails), fails) for fails in failed]


def test_every_member_of_a_split_has_to_be_there_and_fit() -> None:
    with pytest.raises(Unavailable, match="two"):
        ensemble(split(5000, 5000), FakeLive(one=echo(ABC)), "one", "two")
    with pytest.raises(FailedPrecondition, match="different labels"):
        ensemble(split(5000, 5000), FakeLive(one=echo(ABC), two=echo(("a", "b", "d"))))


def test_shares_change_at_once_and_the_check_starts_anew() -> None:
    live = FakeLive(one=echo(ABC), two=echo(ABC))
    router = Router("e", ("one", "two"), Shares((10_000, 0)), key=Key(KeySource.PARAMETER, "user"))
    model = ensemble(RoutedKind(router, all_answer=True), live)
    model.infer(of_users())

    router.route(Shares((0, 10_000)))
    found = model.infer(of_users())

    assert {answered(one).parameters[ANSWERED_BY] for one in found} == {"two"}
    with pytest.raises(FailedPrecondition):
        router.route(Shares((10_000,)))
    with pytest.raises(FailedPrecondition):
        router.route(Shares((10_000, 0), 10_001))


class Shadowed:
    """A shadow of ``one`` over live models."""

    def __init__(self, live: FakeLive, mirrored: int = 10_000, members: int = 2) -> None:
        names = ("one", "two", "three")[:members]
        self.told = Told()
        self.mirror = Mirror(names, Comparer(), (self.told,))
        shares = Shares((10_000, *[0] * (members - 1)), mirrored)
        router = Router(
            "e", names, shares, mirror=self.mirror, observers=(self.told,), rng=random.Random(0)
        )
        members_ = [Member(name, ModelRef(name)) for name in names]
        self.model: Ensemble = ensemble(RoutedKind(router, all_answer=False), live, *members_)


@pytest.fixture
def closing() -> Iterator[list[Shadowed]]:
    made: list[Shadowed] = []
    yield made
    for one in made:
        one.model.close()


def test_a_mirror_is_compared_by_label(closing: list[Shadowed]) -> None:
    live = FakeLive(one=echo(ABC), two=echo(CAB))
    shadow = Shadowed(live)
    closing.append(shadow)

    (found,) = shadow.model.infer([request(ROW)])
    assert shadow.mirror.wait_idle(10)

    assert answered(found).parameters == {ANSWERED_BY: "one"}
    (pair,) = shadow.told.pairs
    # What the primary calls a is c for the other: by index they would agree.
    assert pair.comparison.agreed is False
    assert shadow.told.alone == []


def test_all_mirrors_get_a_copy_of_the_sample(closing: list[Shadowed]) -> None:
    live = FakeLive(one=echo(ABC), two=echo(ABC), three=echo(ABC))
    shadow = Shadowed(live, mirrored=5000, members=3)
    closing.append(shadow)

    for number in range(40):
        shadow.model.infer([request(ROW, id=str(number))])
        assert shadow.mirror.wait_idle(10)

    copied = {pair.request.id for pair in shadow.told.pairs}
    assert 10 < len(copied) < 30
    assert len(shadow.told.pairs) == 2 * len(copied)
    assert {name for name, *_ in shadow.told.alone} == {str(n) for n in range(40)} - copied


@pytest.mark.parametrize(
    "mirror",
    [
        failing(InvalidArgument("no"), ABC),
        FakeModel(lambda _: {"scores": np.zeros((1, 3))}, inputs=[TensorSpec("z", "FP32", (-1,))]),
        echo(("a", "b", "d")),
        None,
    ],
    ids=["fails", "other input", "other labels", "absent"],
)
def test_no_mirror_can_harm_the_primary(mirror: FakeModel | None, closing: list[Shadowed]) -> None:
    live = FakeLive(one=echo(ABC)) if mirror is None else FakeLive(one=echo(ABC), two=mirror)
    shadow = Shadowed(live)
    closing.append(shadow)

    (found,) = shadow.model.infer([request(ROW)])
    assert shadow.mirror.wait_idle(10)

    assert answered(found).outputs["scores"].tolist() == [pytest.approx(ROW)]
    (pair,) = shadow.told.pairs
    assert pair.second.failed


def test_a_mirror_that_is_replaced_by_another_kind_is_looked_at_anew(
    closing: list[Shadowed],
) -> None:
    live = FakeLive(one=echo(ABC), two=echo(ABC))
    shadow = Shadowed(live)
    closing.append(shadow)
    agreed = []
    for labels in (ABC, CAB, CAB):
        live.models["two"] = echo(labels)
        (found,) = shadow.model.infer([request(ROW)])
        assert shadow.mirror.wait_idle(10)
        assert answered(found).parameters == {ANSWERED_BY: "one"}
        agreed.append(shadow.told.pairs[-1].comparison.agreed)

    # The first copy for the new kind finds that it is another one; the next is right.
    assert agreed == [True, None, False]
