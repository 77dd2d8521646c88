"""The next member answers where one cannot, and only there; all answer as the first would."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from crossfade.ensemble.fallback import Fallback
from crossfade.ensemble.pace import Pace
from crossfade.ensemble.plan import ANSWERED_BY, LEFT_OUT
from crossfade.runtimes.core import errors
from crossfade.runtimes.core.errors import Code, CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import InferRequest, Tensors, TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, echo, ensemble, failing, request

ABC = ("a", "b", "c")
ROW = [0.25, 0.75, 0.0]


@pytest.mark.parametrize(
    "kind",
    [
        errors.Unavailable,
        errors.ResourceExhausted,
        errors.Internal,
        errors.DeadlineExceeded,
        errors.NotFound,
        errors.FailedPrecondition,
    ],
)
def test_a_server_side_error_is_mended(kind: type[CrossfadeError]) -> None:
    live = FakeLive(one=failing(kind("no"), ABC), two=echo(ABC))
    (found,) = ensemble(Fallback(), live).infer([request(ROW)])
    assert answered(found).parameters == {ANSWERED_BY: "two", LEFT_OUT: "one"}


@pytest.mark.parametrize(
    "kind", [errors.InvalidArgument, errors.Cancelled, errors.PermissionDenied]
)
def test_a_callers_error_is_not(kind: type[CrossfadeError]) -> None:
    live = FakeLive(one=failing(kind("no"), ABC), two=echo(ABC))
    (found,) = ensemble(Fallback(), live).infer([request(ROW)])
    assert isinstance(found, kind)
    assert live.models["two"].calls == []


def test_only_what_failed_goes_on_and_the_last_error_stands() -> None:
    def run(asked: InferRequest) -> Tensors | CrossfadeError:
        low = asked.inputs["x"][0, 0] < 0.5
        return errors.Unavailable("low") if low else {"scores": asked.inputs["x"]}

    live = FakeLive(
        one=FakeModel(run, labels={"scores": ABC}), two=failing(errors.Internal("two"), ABC)
    )
    low, high = ensemble(Fallback(), live).infer([request(ROW), request([1, 0, 0])])
    assert isinstance(low, errors.Internal)
    assert answered(high).parameters == {ANSWERED_BY: "one"}
    assert [len(call) for call in live.models["two"].calls] == [1]


def test_answers_are_alike_whoever_gives_them() -> None:
    stored = FakeModel(
        lambda _: {"scores": np.array([[0, 64, 192]], np.uint8)},
        outputs=[TensorSpec("scores", "UINT8", (-1, 3))],
        labels={"scores": ("c", "a", "b")},
        quantization={"scores": (1 / 256, 0)},
    )
    live = FakeLive(one=failing(errors.Unavailable("away"), ABC), two=stored)
    model = ensemble(Fallback(), live)
    assert model.metadata.signatures["serving_default"].outputs[0].dtype == "FP32"
    (found,) = model.infer([request(ROW)])
    assert answered(found).outputs["scores"].tolist() == [ROW]


def test_the_first_member_may_be_the_one_that_stores_integers() -> None:
    stored = FakeModel(
        lambda _: {"scores": np.array([[64, 192, 0]], np.uint8)},
        outputs=[TensorSpec("scores", "UINT8", (-1, 3))],
        labels={"scores": ABC},
        quantization={"scores": (1 / 256, 0)},
    )
    (found,) = ensemble(Fallback(), FakeLive(one=stored, two=echo(ABC))).infer([request(ROW)])
    assert answered(found).outputs["scores"].tolist() == [ROW]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (echo(("a", "b", "d")), "different labels for 'scores': 'c', 'd'"),
        (echo(), "'two' has no labels"),
        (echo(ABC, outputs=[TensorSpec("scores", "INT64", (-1, 3))]), "is FP32 for 'one' and INT"),
        (echo(ABC, outputs=[TensorSpec("scores", "FP32", (-1, 2, 3))]), r"\[-1, 2, 3\] for 'two'"),
        (echo(outputs=[TensorSpec("y", "FP32", (-1, 3))]), "no output of one name"),
    ],
)
def test_members_that_do_not_fit(other: FakeModel, says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        ensemble(Fallback(), FakeLive(one=echo(ABC), two=other))


def test_a_member_that_is_not_there_is_passed_over() -> None:
    model = ensemble(Fallback(), FakeLive(two=echo(ABC)), "one", "two")
    (found,) = model.infer([request(ROW)])
    assert answered(found).parameters == {ANSWERED_BY: "two", LEFT_OUT: "one"}
    with pytest.raises(errors.Unavailable, match="member 'one' is not there"):
        ensemble(Fallback(), FakeLive(), "one", "two")


def test_a_member_that_goes_is_passed_over() -> None:
    live = FakeLive(one=echo(ABC), two=echo(ABC))
    model = ensemble(Fallback(), live)
    del live.models["one"]
    (found,) = model.infer([request(ROW)])
    assert answered(found).parameters[ANSWERED_BY] == "two"


def hanging(release: threading.Event) -> FakeModel:
    def run(asked: InferRequest) -> Tensors:
        release.wait(20)
        return {"scores": asked.inputs["x"]}

    return FakeModel(run, labels={"scores": ABC})


def test_a_member_that_takes_too_long_is_not_waited_for() -> None:
    release = threading.Event()
    live = FakeLive(one=hanging(release), two=echo(ABC))
    (found,) = ensemble(Fallback(timeout_s=0.05), live).infer([request(ROW)])
    assert answered(found).parameters == {ANSWERED_BY: "two", LEFT_OUT: "one"}
    deadline_s = time.monotonic() + 0.5
    (found,) = ensemble(Fallback(), live).infer([request(ROW, deadline_s=deadline_s)])
    assert answered(found).parameters[ANSWERED_BY] == "two"
    release.set()


def test_the_last_member_has_all_the_time_that_is_left() -> None:
    release = threading.Event()
    live = FakeLive(one=failing(errors.Unavailable("away"), ABC), two=hanging(release))
    timer = threading.Timer(0.2, release.set)
    timer.start()
    (found,) = ensemble(Fallback(timeout_s=0.02), live).infer([request(ROW)])
    assert answered(found).parameters[ANSWERED_BY] == "two"
    timer.join()


def test_a_request_that_nobody_waits_for_fails_with_its_own_error() -> None:
    late = errors.DeadlineExceeded("late")
    live = FakeLive(one=failing(late, ABC), two=failing(late, ABC))
    (found,) = ensemble(Fallback(), live).infer([request(ROW, deadline_s=time.monotonic() - 1)])
    assert isinstance(found, CrossfadeError)
    assert found.code is Code.DEADLINE_EXCEEDED


def test_what_was_once_slow_is_tried_again() -> None:
    pace = Pace(2)
    pace.took(0, 10.0)
    assert pace.needed_s([0]) == 15.0
    for _ in range(100):
        pace.typical_s(0)
    assert pace.typical_s(0) < 0.01
    pace.took(1, 1.0)
    pace.took(1, 2.0)
    assert pace.typical_s(1) == pytest.approx(1.2)
    assert pace.needed_s([]) == 0
