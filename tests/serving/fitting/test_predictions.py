from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossfade.ensemble.combine import MemberScores
from crossfade.ensemble.members import Known, Member
from crossfade.ensemble.scores import ScoreKind
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, InvalidArgument
from crossfade.runtimes.core.model import InferRequest, ModelRef, Tensors, TensorSpec
from crossfade.serving.conversion.data import Rows
from crossfade.serving.fitting.predictions import Predictions, ask, checked
from tests.ensemble.live import FakeLive, FakeModel, echo

BAD = 13.0


def known(live: FakeLive, **names: Any) -> Known:
    return Known(Member("m", ModelRef("m"), **names), live.metadata(ModelRef("m")))


def some_rows(count: int, *bad: int) -> Rows:
    x = np.random.default_rng(0).random((count, 3)).astype(np.float32)
    x[list(bad)] = BAD
    return Rows({"x": x}, "")


def refusing(request: InferRequest) -> Tensors | CrossfadeError:
    x = request.inputs["x"]
    return InvalidArgument("a bad row") if (x == BAD).any() else {"scores": x}


def test_every_row_is_asked_once_in_batches() -> None:
    live = FakeLive(m=echo("abc"))
    rows, steps = some_rows(21), list[int]()
    found = ask(known(live), live, "scores", rows, batch_rows=32, advance=steps.append)
    assert np.array_equal(found.scores, rows.inputs["x"])
    assert found.answered.all()
    assert (found.row_ms > 0).all()
    assert steps == [8, 8, 5]  # the model takes eight
    assert [one.rows for (one,) in live.models["m"].calls] == steps
    assert live.held == 0


def test_a_bad_row_costs_no_other() -> None:
    live = FakeLive(m=FakeModel(refusing, labels={"scores": "abc"}))
    rows = some_rows(20, 3, 17)
    found = ask(known(live), live, "scores", rows, batch_rows=8, advance=lambda _: None)
    assert np.flatnonzero(~found.answered).tolist() == [3, 17]
    assert np.array_equal(found.scores[found.answered], rows.inputs["x"][found.answered])
    assert found.failure == "a bad row"


def test_a_member_that_answers_nothing_is_not_asked_for_long() -> None:
    live = FakeLive(m=FakeModel(refusing))
    rows = some_rows(1000, *range(1000))
    with pytest.raises(FailedPrecondition, match="'m' answers no row: a bad row"):
        ask(known(live), live, "scores", rows, batch_rows=8, advance=lambda _: None)
    assert len(live.models["m"].calls) <= 9


def test_names_are_the_ensembles() -> None:
    live = FakeLive(m=echo("abc"))
    member = known(live, inputs={"x": "image"}, outputs={"scores": "classes"})
    rows = Rows({"image": some_rows(4).inputs["x"]}, "")
    found = ask(member, live, "classes", rows, batch_rows=4, advance=lambda _: None)
    assert np.array_equal(found.scores, rows.inputs["image"])


def test_a_model_without_a_batch_is_asked_row_by_row() -> None:
    one = (TensorSpec("x", "FP32", (1, 3)),)
    live = FakeLive(m=echo("abc", inputs=one, outputs=(TensorSpec("scores", "FP32", (1, 3)),)))
    rows = some_rows(5)
    found = ask(known(live), live, "scores", rows, batch_rows=32, advance=lambda _: None)
    assert np.array_equal(found.scores, rows.inputs["x"])
    assert len(live.models["m"].calls) == 5


def test_a_score_for_each_pixel_is_no_label() -> None:
    live = FakeLive(m=FakeModel(lambda request: {"scores": np.zeros((request.rows, 4, 3))}))
    with pytest.raises(FailedPrecondition, match=r"shape \[5, 4, 3\]"):
        ask(known(live), live, "scores", some_rows(5), batch_rows=8, advance=lambda _: None)


def test_scores_that_are_not_what_is_declared_count_as_failures() -> None:
    scores = np.float32([[0.5, 0.5], [2.0, 3.0], [np.nan, 1.0], [0.1, 0.9]])
    found = Predictions(scores, np.array([True, True, True, False]), np.ones(4), "")
    declared = MemberScores(ScoreKind.PROBABILITIES, ("a", "b"))
    assert checked(found, declared).answered.tolist() == [True, False, False, False]
    assert "outside 0 .. 1" in checked(found, declared).failure
    good = Predictions(scores[:1], np.array([True]), np.ones(1))
    assert checked(good, declared) is good
