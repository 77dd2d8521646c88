"""Cheap first: who decides what, and what becomes of each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossfade.ensemble.cascade import Gate, Stage
from crossfade.ensemble.cascaded import CascadeKind, StageScores
from crossfade.ensemble.deferral import Expected
from crossfade.ensemble.gate import Measure
from crossfade.ensemble.model import Ensemble
from crossfade.ensemble.plan import ANSWERED_BY
from crossfade.ensemble.scores import ScoreKind
from crossfade.runtimes.core import errors
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import InferRequest, Tensor, Tensors, TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, echo, ensemble, failing, request

ABC, CBA = ("a", "b", "c"), ("c", "b", "a")
SURE, UNSURE = [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]
FULL = [0.0, 0.0, 1.0]  # for c, b, a


def full(labels: Sequence[str] = CBA) -> FakeModel:
    """Is sure of the last of its labels, whatever it sees."""
    return FakeModel(
        lambda asked: {"scores": np.tile(np.float32(FULL), (asked.rows, 1))},
        labels={"scores": labels},
    )


def cascade(
    live: FakeLive,
    *thresholds: float | None,
    gate: Gate | None = None,
    kinds: Sequence[ScoreKind] = (),
    temperature: float = 1.0,
    expected: Expected | None = None,
    **keys: str,
) -> Ensemble:
    names = list(live.models)
    stages = [
        Stage(name, threshold, expected)
        for name, threshold in zip(names, (*thresholds, None), strict=True)
    ]
    scores = [
        StageScores(kind, temperature) for kind in kinds or [ScoreKind.PROBABILITIES] * len(names)
    ]
    kind = CascadeKind("e", stages, scores, gate or Gate(), **keys)  # type: ignore[arg-type]
    return ensemble(kind, live)


def counted(model: Ensemble, name: str = "cascade_rows") -> dict[tuple[str, ...], float]:
    (found,) = [dict(one.values) for one in model.measures() if one.name == name]
    return found


def test_only_rows_that_are_unsure_go_on_those_of_all_requests_together() -> None:
    live = FakeLive(cheap=echo(ABC), full=full())
    model = cascade(live, 0.8, stage_output="stage")

    found = model.infer([request(SURE, UNSURE, SURE), request(SURE), request(UNSURE, UNSURE)])

    first, second, third = (answered(one) for one in found)
    assert np.round(first.outputs["scores"], 3).tolist() == [
        pytest.approx(SURE),
        pytest.approx([1, 0, 0], abs=1e-5),
        pytest.approx(SURE),
    ]
    assert [r.outputs["stage"].tolist() for r in (first, second, third)] == [[0, 1, 0], [0], [1, 1]]
    said = [r.parameters[ANSWERED_BY] for r in (first, second, third)]
    assert said == ["cheap,full", "cheap", "full"]
    (asked,) = live.models["full"].calls
    assert [r.inputs["x"].shape for r in asked] == [(1, 3), (2, 3)]
    assert counted(model) == {
        ("cheap", "answered"): 3,
        ("cheap", "deferred"): 3,
        ("full", "answered"): 3,
    }


def test_by_request_one_unsure_row_takes_all_along() -> None:
    live = FakeLive(cheap=echo(ABC), full=full())
    model = cascade(live, 0.8, gate=Gate(by_row=False))

    mixed, sure = model.infer([request(SURE, UNSURE), request(SURE, SURE)])

    assert answered(mixed).parameters == {ANSWERED_BY: "full"}
    assert answered(sure).parameters == {ANSWERED_BY: "cheap"}


def test_a_threshold_of_none_passes_everything_on() -> None:
    live = FakeLive(cheap=echo(ABC), full=full())

    (found,) = cascade(live, None).infer([request(SURE)])

    assert answered(found).parameters == {ANSWERED_BY: "full"}


@given(
    arrays.arrays(np.float32, (6, 3), elements=st.floats(-8, 8, width=32)),
    st.floats(0.34, 0.99),
    st.floats(0.25, 4),
    st.sampled_from(list(Measure)),
)
def test_each_row_is_as_if_it_came_alone(
    logits: Tensor, threshold: float, temperature: float, measure: Measure
) -> None:
    """Three stages: the second turns the logits around, the third is sure."""
    second = FakeModel(
        lambda asked: {"scores": asked.inputs["x"][:, ::-1] * 2}, labels={"scores": ABC}
    )
    live = FakeLive(cheap=echo(ABC), second=second, full=full())
    model = cascade(
        *(live, threshold, threshold),
        kinds=[ScoreKind.LOGITS, ScoreKind.LOGITS, ScoreKind.PROBABILITIES],
        temperature=temperature,
        gate=Gate(measure),
        stage_output="stage",
    )

    together = answered(model.infer([request(*logits)])[0]).outputs
    alone = [answered(model.infer([request(row)])[0]).outputs for row in logits]

    for name in ("scores", "stage"):
        np.testing.assert_array_equal(together[name], np.concatenate([one[name] for one in alone]))
    np.testing.assert_allclose(together["scores"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.Internal, errors.DeadlineExceeded])
def test_where_a_later_stage_fails_the_answer_before_it_stands(kind: type[CrossfadeError]) -> None:
    live = FakeLive(cheap=echo(ABC), full=failing(kind("no"), ABC))
    model = cascade(live, 0.8)

    (found,) = model.infer([request(SURE, UNSURE)])

    assert answered(found).parameters == {ANSWERED_BY: "cheap"}
    assert answered(found).outputs["scores"][1].tolist() == pytest.approx(UNSURE)
    assert counted(model)["full", "failed"] == 1


def test_a_first_stage_that_fails_is_passed_over() -> None:
    live = FakeLive(cheap=failing(errors.Unavailable("no"), ABC), full=full(ABC))

    (found,) = cascade(live, 0.8).infer([request(SURE)])

    assert answered(found).parameters == {ANSWERED_BY: "full"}


def test_where_no_stage_answers_the_last_error_does() -> None:
    first, last = errors.Unavailable("first"), errors.ResourceExhausted("last")
    live = FakeLive(cheap=failing(first, ABC), full=failing(last, ABC))

    assert cascade(live, 0.8).infer([request(SURE)]) == [last]


def test_a_callers_error_ends_it_and_no_neighbour() -> None:
    def run(asked: InferRequest) -> Tensors | CrossfadeError:
        wrong = asked.inputs["x"][0, 0] < 0
        return errors.InvalidArgument("no") if wrong else {"scores": asked.inputs["x"]}

    live = FakeLive(cheap=FakeModel(run, labels={"scores": ABC}), full=full(ABC))

    wrong, right = cascade(live, 0.8).infer([request([-1, 0, 0]), request(SURE)])

    assert isinstance(wrong, errors.InvalidArgument)
    assert answered(right).parameters == {ANSWERED_BY: "cheap"}


def test_scores_that_are_not_what_is_declared_are_that_stages_failure() -> None:
    live = FakeLive(cheap=echo(ABC), full=full(ABC))

    (found,) = cascade(live, 0.8).infer([request([5.0, 4.0, 3.0])])

    assert answered(found).parameters == {ANSWERED_BY: "full"}


def test_a_label_that_a_stage_lacks_has_no_probability_there() -> None:
    two = [TensorSpec("scores", "FP32", (-1, 2))]
    cheap = FakeModel(
        lambda asked: {"scores": asked.inputs["x"][:, :2]}, outputs=two, labels={"scores": "ab"}
    )
    live = FakeLive(cheap=cheap, full=full(CBA))
    model = cascade(live, 0.8)

    found = answered(model.infer([request([0.9, 0.1, 0])])[0])

    assert tuple(model.metadata.labels["scores"]) == ABC
    assert found.outputs["scores"].tolist() == [pytest.approx([0.9, 0.1, 0], abs=1e-5)]


def test_other_outputs_come_from_the_stage_that_answered() -> None:
    specs = [
        TensorSpec("scores", "FP32", (-1, 3)),
        TensorSpec("name", "BYTES", (-1,)),
        TensorSpec("extra", "FP32", (-1, 2)),
    ]

    def named(name: bytes, outputs: list[TensorSpec], scores: Sequence[float] = ()) -> FakeModel:
        def run(asked: InferRequest) -> Tensors:
            found = {
                "scores": np.float32([scores] * asked.rows) if scores else asked.inputs["x"],
                "name": np.array([name] * asked.rows, object),
                "extra": np.zeros((asked.rows, 2), np.float32),
            }
            return {name: found[name] for name in asked.outputs}

        return FakeModel(run, outputs=outputs, labels={"scores": ABC})

    live = FakeLive(cheap=named(b"cheap", specs), full=named(b"full", specs[:2], FULL))
    model = cascade(live, 0.8)

    found = answered(model.infer([request(SURE, UNSURE)])[0])
    only = answered(model.infer([request(SURE, UNSURE, outputs=("name",))])[0])

    assert [spec.name for spec in model.metadata.signatures["serving_default"].outputs] == [
        "scores",
        "name",
    ]
    assert found.outputs["name"].tolist() == [b"cheap", b"full"]
    assert list(only.outputs) == ["name"]


def test_a_model_without_rows_is_decided_as_a_whole() -> None:
    spec = {
        "inputs": [TensorSpec("x", "FP32", (3,))],
        "outputs": [TensorSpec("scores", "FP32", (3,))],
    }
    live = FakeLive(
        cheap=FakeModel(lambda a: {"scores": a.inputs["x"]}, labels={"scores": ABC}, **spec),
        full=FakeModel(lambda _: {"scores": np.float32(FULL)}, labels={"scores": CBA}, **spec),
    )
    model = cascade(live, 0.8, stage_output="stage")
    asked = [InferRequest({"x": np.float32(row)}) for row in (SURE, UNSURE)]

    sure, unsure = (answered(one).outputs for one in model.infer(asked))

    assert (sure["stage"].tolist(), unsure["stage"].tolist()) == ([0], [1])
    assert unsure["scores"].tolist() == pytest.approx([1, 0, 0], abs=1e-5)


def test_rows_are_counted_where_the_ensemble_is_declared_without_a_batch() -> None:
    live = FakeLive(cheap=echo(ABC), full=full())
    (found,) = cascade(live, 0.8, stage_output="stage").infer(
        [dataclasses.replace(request(SURE, UNSURE), rows=1)]
    )

    assert answered(found).outputs["stage"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("models", "keys", "message"),
    [
        ({"cheap": echo(ABC), "full": echo()}, {}, "which output has the class scores"),
        ({"cheap": echo(ABC), "full": echo(ABC)}, {"output": "y"}, "no output 'y' with labels"),
        (
            {"cheap": echo(ABC), "full": echo(ABC)},
            {"stage_output": "scores"},
            "stage_output: the stages have an output 'scores'",
        ),
        (
            {"cheap": echo(ABC), "full": echo(ABC)},
            {"kinds": [ScoreKind.LABEL_LOGITS] * 2},
            "classes that exclude each other",
        ),
        ({"cheap": echo(ABC), "full": echo(("A", "b", "c"))}, {}, "write one label as 'A' and 'a'"),
    ],
)
def test_stages_that_do_not_fit_are_refused(
    models: dict[str, FakeModel], keys: dict[str, str], message: str
) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        cascade(FakeLive(**models), 0.8, **keys)


def test_a_drift_of_the_deferral_rate_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    live = FakeLive(cheap=echo(ABC), full=full())
    model = cascade(live, 0.8, expected=Expected(0.1, 0.2))
    for _ in range(10):
        model.infer([request(*[SURE] * 6, UNSURE)])
    assert sum(counted(model, "cascade_deferral_alarms").values()) == 0

    for _ in range(20):
        model.infer([request(*[UNSURE] * 7)])

    assert counted(model, "cascade_deferral_alarms")["cheap", "above"] >= 1
    assert "another share of its rows" in caplog.text
