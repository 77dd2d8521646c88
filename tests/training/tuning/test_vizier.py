"""Vizier over its wire, in both dialects, by a service of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from crossfade.runtimes.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from crossfade.training.tuning.space import Choice, Number, Space
from crossfade.training.tuning.transfer import Finished
from crossfade.training.tuning.tuner import OptunaTuner, Tuner, search
from crossfade.training.tuning.vizier import tuner as vizier_tuner
from crossfade.training.tuning.vizier.messages import Dialect, messages
from crossfade.training.tuning.vizier.tuner import VizierTuner
from tests.training.tuning.vizier_server import Service, running

SPACE = Space(
    {
        "rate": Number(1e-5, 1, log=True),
        "width": Number(8, 64, integer=True),
        "kind": Choice(("sgd", "adamw")),
    }
)
PARENT = {"vertex": "projects/p/locations/us-central1", "oss": "owners/me"}
SOURCE = [
    Finished({"rate": 0.01, "width": 16, "kind": "adamw"}, 0.1),
    Finished({"rate": 0.5, "width": 60, "kind": "sgd"}, 0.9),
]


@pytest.fixture(params=["vertex", "oss"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vizier_tuner, "_POLL_S", 0.001)


@pytest.fixture
def peer(dialect: Dialect) -> Iterator[tuple[Service, grpc.Channel]]:
    with running(dialect) as both:
        yield both


def opened(peer: tuple[Service, grpc.Channel], **options: Any) -> VizierTuner:
    service, channel = peer
    settings = {"name": "shapes", "dialect": service.dialect, **options}
    return VizierTuner(channel, PARENT[service.dialect], SPACE, **settings)


def loss(values: Any) -> float:
    return abs(float(values["rate"]) - 0.01) + (values["kind"] == "sgd")


def test_the_study_says_what_is_searched(peer: tuple[Service, grpc.Channel]) -> None:
    opened(peer)
    (study,) = peer[0].studies.values()
    rate, width, kind = study.study_spec.parameters
    value = peer[0].messages.value
    assert rate.scale_type == value("StudySpec.ParameterSpec.ScaleType.UNIT_LOG_SCALE")
    assert (rate.double_value_spec.min_value, rate.double_value_spec.max_value) == (1e-5, 1)
    assert width.scale_type == value("StudySpec.ParameterSpec.ScaleType.UNIT_LINEAR_SCALE")
    assert width.integer_value_spec.max_value == 64
    assert list(kind.categorical_value_spec.values) == ["sgd", "adamw"]
    (metric,) = study.study_spec.metrics
    assert metric.goal == value("StudySpec.MetricSpec.GoalType.MINIMIZE")


def test_one_search_by_every_service(peer: tuple[Service, grpc.Channel]) -> None:
    """The same calls, and what was known before is tried first, at Optuna and at Vizier."""
    tuners: list[Tuner] = [opened(peer, sources=[SOURCE]), OptunaTuner(SPACE, sources=[SOURCE])]
    for tuner in tuners:
        tuner.add(Finished({"rate": 0.3, "width": 33, "kind": "sgd"}, 1.29))
        best = search(tuner, loss, 8)
        done = tuner.finished()
        assert len(done) == 9
        # Optuna lists what was enqueued before what was added, Vizier as it was created.
        by_loss = {trial.loss: trial for trial in done}
        assert by_loss[1.29].values["width"] == 33
        first = next(trial for trial in done if trial.loss != 1.29)
        assert first.values["rate"] == pytest.approx(0.01)
        assert (first.values["width"], first.values["kind"]) == (16, "adamw")
        assert best.loss == min(trial.loss for trial in done) == pytest.approx(0, abs=1e-9)
        assert all(isinstance(trial.values["width"], int) for trial in done)


def test_a_search_goes_on(peer: tuple[Service, grpc.Channel]) -> None:
    search(opened(peer, sources=[SOURCE]), loss, 7)
    again = opened(peer, sources=[SOURCE])
    assert len(peer[0].studies) == 1
    assert len(again.finished()) == 7, "over three pages"
    search(again, loss, 1)
    assert peer[0].calls.count("CreateTrial") == 2, "the portfolio is tried once"
    resource = again.study
    assert f"parent={resource}" in peer[0].headers
    assert any(header.startswith(f"name={resource}/trials/") for header in peer[0].headers)


def test_a_trial_that_fails(peer: tuple[Service, grpc.Channel]) -> None:
    tuner = opened(peer)
    with pytest.raises(InvalidArgument, match="no trial came to a finite loss"):
        search(tuner, lambda _: float("nan"), 2)
    infeasible = peer[0].messages.value("Trial.State.INFEASIBLE")
    (trials,) = peer[0].trials.values()
    assert [trial.state for trial in trials.values()] == [infeasible] * 2


def test_another_space_needs_another_name(peer: tuple[Service, grpc.Channel]) -> None:
    opened(peer)
    other = Space({"rate": Number(1e-5, 2, log=True)})
    with pytest.raises(FailedPrecondition, match="searches other parameters"):
        VizierTuner(peer[1], PARENT[peer[0].dialect], other, name="shapes", dialect=peer[0].dialect)


def test_refusals_are_told(peer: tuple[Service, grpc.Channel]) -> None:
    tuner = opened(peer)
    suggestion = tuner.suggest()
    tuner.complete(suggestion, 1.0)
    with pytest.raises(FailedPrecondition, match="refused CompleteTrial: the trial is complete"):
        tuner.complete(suggestion, 1.0)
    peer[0].fail_operations = True
    with pytest.raises(FailedPrecondition, match="gave no suggestion: no more quota"):
        tuner.suggest()
    peer[0].fail_operations = False
    peer[0].polls = 10**6
    tuner._timeout_s = 0.05
    with pytest.raises(DeadlineExceeded, match=r"no suggestion in 0\.05 s"):
        tuner.suggest()
    peer[0].studies.clear()
    with pytest.raises(NotFound):
        tuner.finished()


def test_a_service_that_is_not_there() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(Unavailable):
        VizierTuner(channel, "owners/me", SPACE, name="x", dialect="oss")


def test_the_numbers_are_vertex_ais() -> None:
    """As published in google/cloud/aiplatform/v1/study.proto; a typing error would be silent."""
    vertex, oss = messages("vertex"), messages("oss")
    numbers = {
        "StudySpec": {"metrics": 1, "parameters": 2, "algorithm": 3},
        "StudySpec.ParameterSpec": {
            "parameter_id": 1,
            "double_value_spec": 2,
            "integer_value_spec": 3,
            "categorical_value_spec": 4,
            "scale_type": 6,
        },
        "Measurement": {"step_count": 2, "metrics": 3},
        "CompleteTrialRequest": {
            "name": 1,
            "final_measurement": 2,
            "trial_infeasible": 3,
            "infeasible_reason": 4,
        },
    }
    for name, fields in numbers.items():
        for both in (vertex, oss):
            found = {field.name: field.number for field in both.of(name).DESCRIPTOR.fields}
            assert found == fields
    scales = [
        vertex.value(f"StudySpec.ParameterSpec.ScaleType.{name}")
        for name in ("UNIT_LINEAR_SCALE", "UNIT_LOG_SCALE", "UNIT_REVERSE_LOG_SCALE")
    ]
    assert scales == [1, 2, 3]
    assert vertex.of("Study").DESCRIPTOR.full_name == "google.cloud.aiplatform.v1.Study"
    assert oss.of("Study").DESCRIPTOR.full_name == "vizier.Study"
