"""An ensemble that follows: answers with the newest weights, and remembers what was claimed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from crossfade.ensemble.adapting import Settings, Setup
from crossfade.ensemble.adaptive import Adapt, Following
from crossfade.ensemble.claims import claims_of
from crossfade.ensemble.combine import Rule
from crossfade.ensemble.scores import ScoreKind
from crossfade.ensemble.turnout import Turnout
from crossfade.ensemble.weighted import Voice, Weighted
from crossfade.runtimes.core.errors import FailedPrecondition, Unavailable
from crossfade.runtimes.core.model import TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, echo, ensemble, failing, request

SETTINGS = Settings(0.1, 20, 1.0, 0.01, 0.1, 0.01)
CBA = ("c", "b", "a")


def kind(kept: list[Following], **keys: Any) -> Weighted:
    def open_(setup: Setup) -> Following:
        kept.append(Following(setup))
        return kept[-1]

    voices = (
        Voice(ScoreKind.PROBABILITIES, 3.0),
        Voice(keys.pop("second", ScoreKind.PROBABILITIES), 1.0),
    )
    adapt = Adapt("pair", 1, SETTINGS, 0.4, keys.pop("sample_percent", 100.0), open_)
    turnout = Turnout(keys.pop("quorum", 2))
    return Weighted(voices, turnout, adapt=adapt, **keys)


def other(row: Any) -> FakeModel:
    return FakeModel(lambda _: {"scores": row}, labels={"scores": CBA})


def test_answers_follow_the_weights_and_claims_are_by_label() -> None:
    kept: list[Following] = []
    second = np.array([[0.2, 0.3, 0.5]], np.float32)  # of c, b, a
    model = ensemble(kind(kept), FakeLive(one=echo(CBA), two=other(second)))
    following = kept[0]
    assert following.setup.labels == ("a", "b", "c")
    assert following.setup.fitted == (0.75, 0.25)
    asked = [
        request([0.8, 0.1, 0.1], id="first"),
        request([0.1, 0.8, 0.1]),
        request([0.1, 0.8, 0.1], [0.1, 0.8, 0.1], id="two rows"),
    ]
    assert np.allclose(
        answered(model.infer(asked[:1])[0]).outputs["scores"], [[0.65, 0.15, 0.2]], atol=1e-6
    )
    model.infer(asked[:2])  # together; a repeated id
    following.state = dataclasses.replace(following.state, weights=(0.0, 1.0))
    model.infer([asked[2]])
    assert np.allclose(answered(model.infer(asked[:1])[0]).outputs["scores"], second, atol=1e-6), (
        "the newest weights count, without a new plan"
    )
    claims = following.take()
    assert list(claims) == ["first"], "one row, and an id"
    assert claims_of(claims["first"], 0) == pytest.approx((0.1, 0.5), abs=1e-5)
    assert claims_of(claims["first"], 2) == pytest.approx((0.8, 0.2), abs=1e-5)
    assert following.take() == {}
    following.put_back(claims)
    assert following.take() == claims


def test_nothing_is_remembered_of_what_not_all_members_answered() -> None:
    kept: list[Following] = []
    live = FakeLive(one=echo(CBA), two=failing(Unavailable("gone"), CBA))
    model = ensemble(kind(kept, quorum=1), live)
    answered(model.infer([request([0.8, 0.1, 0.1], id="first")])[0])
    assert kept[0].take() == {}


def test_a_sample_is_chosen_by_id() -> None:
    kept: list[Following] = []
    live = FakeLive(one=echo(CBA), two=echo(CBA))
    model = ensemble(kind(kept, sample_percent=25), live)
    asked = [request([0.8, 0.1, 0.1], id=f"id-{n}") for n in range(400)]
    for one in asked:
        model.infer([one])
    first = kept[0].take()
    assert 60 < len(first) < 140
    for one in asked:
        model.infer([one])
    assert kept[0].take() == first


@pytest.mark.parametrize(
    ("make", "live", "reason"),
    [
        (lambda kept: kind(kept, rule=Rule.LOGIT), {}, "not logit"),
        (
            lambda kept: dataclasses.replace(kind(kept), voices=(Voice(ScoreKind.PROBABILITIES),)),
            {"two": None},
            "nothing to learn",
        ),
        (
            lambda kept: dataclasses.replace(
                kind(kept), voices=(Voice(ScoreKind.LABEL_PROBABILITIES),) * 2
            ),
            {},
            "exclusive classes",
        ),
        (
            kind,
            {"one": 2, "two": 2},
            "one output",
        ),
    ],
)
def test_what_cannot_adapt_is_refused(
    make: Callable[[list[Following]], Weighted], live: dict[str, int | None], reason: str
) -> None:
    def member(outputs: int) -> FakeModel:
        names = [f"scores{n or ''}" for n in range(outputs)]
        specs = [TensorSpec(name, "FP32", (-1, 3)) for name in names]
        return FakeModel(lambda _: {}, outputs=specs, labels=dict.fromkeys(names, CBA))

    wanted = {"one": 1, "two": 1, **live}
    models = {name: member(outputs) for name, outputs in wanted.items() if outputs}
    with pytest.raises(FailedPrecondition, match=reason):
        ensemble(make([]), FakeLive(**models))
