"""Members' outputs become one: by label, of any rank, with those left out who may be."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.ensemble.combine import Rule
from crossfade.ensemble.learned import Learned
from crossfade.ensemble.members import Member
from crossfade.ensemble.plan import LEFT_OUT
from crossfade.ensemble.scores import ScoreKind
from crossfade.ensemble.turnout import Turnout
from crossfade.ensemble.weighted import Voice, Weighted
from crossfade.ensemble.weights import Candidate, Fit, WeightsReport
from crossfade.ensemble.weights import Member as Row
from crossfade.runtimes.core.errors import (
    Code,
    CrossfadeError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    Unavailable,
)
from crossfade.runtimes.core.model import InferRequest, ModelRef, TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, echo, ensemble, failing, request

ABC = ("a", "b", "c")
PROBABILITIES = Voice(ScoreKind.PROBABILITIES)


def weighted(
    members: int = 2, quorum: int | None = None, timeout_s: float | None = None
) -> Weighted:
    turnout = Turnout(members if quorum is None else quorum, timeout_s)
    return Weighted((PROBABILITIES,) * members, turnout)


@given(st.permutations(ABC), st.lists(st.floats(0.1, 1), min_size=3, max_size=3))
def test_the_order_of_labels_does_not_matter(order: list[str], numbers: list[float]) -> None:
    row = np.array(numbers, np.float32) / np.float32(sum(numbers))
    own = np.array([row[ABC.index(label)] for label in order], np.float32)
    other = FakeModel(lambda _: {"scores": own[None]}, labels={"scores": order})
    found = ensemble(weighted(), FakeLive(one=echo(ABC), two=other)).infer([request(row)])
    assert np.allclose(answered(found[0]).outputs["scores"], row[None], atol=1e-5)


def test_each_request_has_its_own_outcome() -> None:
    def run(asked: InferRequest) -> dict[str, np.ndarray] | CrossfadeError:
        bad = asked.inputs["x"][0, 0] == 1
        return InvalidArgument("no ones") if bad else {"scores": asked.inputs["x"]}

    live = FakeLive(one=echo(ABC), two=FakeModel(run, labels={"scores": ABC}))
    found = ensemble(weighted(), live).infer([request([1, 0, 0]), request([0, 1, 0])])
    assert isinstance(found[0], InvalidArgument)
    assert np.allclose(answered(found[1]).outputs["scores"], [[0, 1, 0]], atol=1e-5)
    assert len(live.models["two"].calls) == 1, "a list of requests is handed on as a list"
    assert live.held == 0


def test_requests_that_come_together_are_answered_as_alone() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.dirichlet(np.ones(3), n).astype(np.float32) for n in (1, 3, 2)]
    live = FakeLive(one=echo(ABC), two=echo(("c", "a", "b")))
    model = ensemble(weighted(), live)
    asked = [request(*row) for row in rows]
    alone = [answered(model.infer([one])[0]).outputs["scores"] for one in asked]
    together = model.infer(asked)
    for expected, found in zip(alone, together, strict=True):
        assert np.allclose(answered(found).outputs["scores"], expected, atol=1e-6)
    bad = request([0.9, 0.9, 0.9])  # no probabilities: its own failure
    first, second = model.infer([asked[0], bad])
    assert np.allclose(answered(first).outputs["scores"], alone[0], atol=1e-6)
    assert isinstance(second, Internal)


def test_what_a_member_is_asked() -> None:
    one = FakeModel(
        lambda asked: {"p": asked.inputs["pixels"]},
        inputs=[TensorSpec("pixels", "FP32", (-1, 3))],
        outputs=[TensorSpec("p", "FP32", (-1, 3)), TensorSpec("more", "FP32", (-1, 9))],
        labels={"p": ABC},
    )
    member = Member("first", ModelRef("one"), None, {"pixels": "x"}, {"p": "scores"})
    model = ensemble(weighted(1), FakeLive(one=one), member)
    assert [spec.name for spec in model.metadata.signatures["serving_default"].inputs] == ["x"]
    asked = request([0, 1, 0], deadline_s=5.0, priority=2, id="i", parameters={"k": 1})
    model.infer([asked])
    (got,) = one.calls[0]
    assert set(got.inputs) == {"pixels"}
    assert got.outputs == ("p",)
    assert (got.deadline_s, got.priority, got.id) == (5.0, 2, "i")
    assert got.parameters == {"k": 1}


def test_uint8_scores_are_made_real_and_logits_are_not_mixed_up() -> None:
    stored = FakeModel(
        lambda _: {"scores": np.array([[192, 64, 0]], np.uint8)},
        outputs=[TensorSpec("scores", "UINT8", (-1, 3))],
        labels={"scores": ABC},
        quantization={"scores": (1 / 256, 0)},
    )
    logits = FakeModel(
        lambda _: {"scores": np.log(np.array([[0.25, 0.5, 0.25]], np.float32))},
        labels={"scores": ABC},
    )
    kind = Weighted((PROBABILITIES, Voice(ScoreKind.LOGITS)), Turnout(2))
    model = ensemble(kind, FakeLive(stored=stored, logits=logits))
    assert model.metadata.signatures["serving_default"].outputs[0].dtype == "FP32"
    (found,) = model.infer([request([0, 0, 0])])
    assert np.allclose(answered(found).outputs["scores"], [[0.5, 0.375, 0.125]], atol=3e-3)


def test_values_of_any_rank() -> None:
    output = [TensorSpec("mask", "FP32", (-1, -1, 2))]
    halves = [
        FakeModel(lambda asked, v=v: {"mask": np.full((1, 3, 2), v, np.float32)}, outputs=output)
        for v in (1.0, 3.0)
    ]
    kind = Weighted((Voice(ScoreKind.VALUES, 3), Voice(ScoreKind.VALUES, 1)), Turnout(2))
    model = ensemble(kind, FakeLive(one=halves[0], two=halves[1]))
    (found,) = model.infer([request([0, 0, 0])])
    assert answered(found).outputs["mask"].tolist() == np.full((1, 3, 2), 1.5).tolist()


def test_a_member_that_fails_fails_the_request_unless_others_are_enough() -> None:
    live = FakeLive(one=echo(ABC), two=failing(Unavailable("away"), ABC))
    (found,) = ensemble(weighted(), live).infer([request([0, 1, 0])])
    assert isinstance(found, Unavailable)
    (found,) = ensemble(weighted(quorum=1), live).infer([request([0, 1, 0])])
    assert answered(found).parameters == {LEFT_OUT: "two"}


def test_the_time_of_a_member_is_bounded() -> None:
    def run(asked: InferRequest) -> dict[str, np.ndarray]:
        assert asked.deadline_s is not None
        time.sleep(max(0.0, asked.deadline_s - time.monotonic()) + 0.05)
        return {"scores": asked.inputs["x"]}

    live = FakeLive(one=echo(ABC), two=FakeModel(run, labels={"scores": ABC}))
    (found,) = ensemble(weighted(quorum=1, timeout_s=0.05), live).infer([request([0, 1, 0])])
    assert answered(found).parameters == {LEFT_OUT: "two"}
    (found,) = ensemble(weighted(quorum=2, timeout_s=0.05), live).infer([request([0, 1, 0])])
    assert isinstance(found, CrossfadeError)
    assert found.code is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (echo(), "'two' has no labels for 'scores'"),
        (echo(("a", "b", "C")), "'c'"),
        (FakeModel(lambda _: {}, outputs=[TensorSpec("y", "FP32", (-1, 3))]), "no output of one"),
        (
            echo(ABC, inputs=[TensorSpec("x", "FP32", (-1, 4))]),
            r"input 'x' is FP32 \[-1, 3\] for member 'one' and FP32 \[-1, 4\] for 'two'",
        ),
        (
            echo(ABC, inputs=[TensorSpec("x", "UINT8", (-1, 8, 8, 3))]),
            r"; if both are pictures, give both models preprocess: \{name: image_bytes\}",
        ),
        (echo(ABC, outputs=[TensorSpec("scores", "FP32", (-1, 2, 3))]), "has shape"),
    ],
)
def test_members_that_do_not_fit(other: FakeModel, says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        ensemble(weighted(), FakeLive(one=echo(ABC), two=other))


def test_a_member_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="member 'two' is not there: 'two' is not at ready"):
        ensemble(weighted(), FakeLive(one=echo(ABC)), "one", "two")


def test_a_member_is_swapped_for_one_with_labels_in_another_order() -> None:
    live = FakeLive(one=echo(ABC), two=echo(ABC))
    model = ensemble(weighted(), live)
    live.models["one"] = echo(("c", "b", "a"))
    live.models["two"] = echo(("c", "b", "a"))
    (found,) = model.infer([request([1, 0, 0])])
    assert np.allclose(answered(found).outputs["scores"], [[0, 0, 1]], atol=1e-5)
    assert model.metadata.labels == {"scores": ABC}, "clients were told so"
    live.models["two"] = echo(("c", "b", "d"))
    (found,) = model.infer([request([1, 0, 0])])
    assert isinstance(found, Unavailable)
    assert "being replaced" in found.message


def test_foreign_errors_end_in_the_ensemble() -> None:
    def run(_: InferRequest) -> dict[str, np.ndarray]:
        raise RuntimeError("/secret/path")

    live = FakeLive(one=echo(ABC), two=FakeModel(run, labels={"scores": ABC}))
    (found,) = ensemble(weighted(), live).infer([request([0, 1, 0])])
    assert isinstance(found, Internal)
    assert "secret" not in found.message


# -- learned weights ----------------------------------------------------------------------------


def report(fit: Fit) -> WeightsReport:
    members = (Row("two", 2.0, 0.1, 0.1, 0.1), Row("one", 1.0, 0.1, 0.1, 0.1))
    chosen = Candidate("stacking", 0.1, 0.0, 0.0, (0.75, 0.25), fit)
    return WeightsReport(10, members, (chosen,), "stacking", 0.1)


def written(fit: Fit, **more: object) -> str:
    return json.dumps({**json.loads(report(fit).to_json()), **more})


def test_learned_weights_count_by_the_members_names() -> None:
    learned = Learned.read(written(Fit((0.75, 0.25))), ["one", "two"])
    assert learned.weights == {"one": 0.25, "two": 0.75}
    assert learned.temperatures == {"one": 1.0, "two": 2.0}
    flat = FakeModel(
        lambda _: {"scores": np.full((1, 3), 1 / 3, np.float32)}, labels={"scores": ABC}
    )
    kind = dataclasses.replace(weighted(), learned=learned)
    (found,) = ensemble(kind, FakeLive(one=echo(ABC), two=flat)).infer([request([1, 0, 0])])
    doubted = (1 - learned.doubt) * np.array([[0.5, 0.25, 0.25]]) + learned.doubt / 3
    assert learned.doubt == 1 / 12
    assert np.allclose(answered(found).outputs["scores"], doubted, atol=1e-5)


def test_a_learned_bias_follows_its_labels() -> None:
    fit = Fit((0.5, 0.5), Rule.LOGIT, (0.0, 0.0, 3.0))
    learned = Learned.read(written(fit, labels=["c", "b", "a"]), ["one", "two"])
    assert learned.bias_for(ABC) == (3.0, 0.0, 0.0)
    with pytest.raises(FailedPrecondition, match="fit them again"):
        learned.bias_for(("a", "b", "d"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not a report"),
        ("[]", "not a report"),
        ("{}", "not a report"),
        (written(Fit((0.5, 0.5)), labels=7), "not a report"),
        (written(Fit((0.5, 0.25, 0.25))), "a weight for each member"),
        (written(Fit((0.5, 0.5), Rule.LOGIT, (1.0, 2.0))), "for a bias labels"),
    ],
)
def test_a_file_that_is_no_report(text: str, says: str) -> None:
    with pytest.raises(FailedPrecondition, match=says):
        Learned.read(text, ["one", "two"])


def test_weights_of_other_members() -> None:
    with pytest.raises(FailedPrecondition, match=r"\['one', 'two'\], not \['one'\]"):
        Learned.read(written(Fit((0.5, 0.5))), ["one"])
