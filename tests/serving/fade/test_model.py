"""The model of a fade: who answers, who is asked instead, and what is recorded of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from crossfade.ensemble.keys import HEADER, Key, KeySource
from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    ModelRef,
    Signature,
    TensorSpec,
)
from crossfade.serving.fade.evidence import CANDIDATE, PRIMARY, StepEvidence
from crossfade.serving.fade.model import FadeModel
from crossfade.serving.fade.recorder import Recorder
from crossfade.serving.fade.records import Prediction
from tests.spans import KeptSpan

FORM = ModelMetadata(
    "flowers",
    1,
    "fake",
    {
        "serving_default": Signature.derive(
            (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("scores", "FP32", (-1, 2)),)
        )
    },
    {"scores": ("rose", "oak")},
    8,
)
Answer = Callable[[InferRequest], InferResult]


class Fake:
    """A Model that answers as it is told."""

    metadata = FORM

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        self.asked += len(requests)
        return [self.answer(request) for request in requests]

    def close(self) -> None:
        pass


class Models:
    """Stands in for the manager."""

    def __init__(self, **models: Fake) -> None:
        self.models = models

    @contextlib.contextmanager
    def lease(self, ref: ModelRef, deadline_s: float | None = None) -> Iterator[Fake]:
        if ref.name not in self.models:
            raise NotFound(f"no {ref.name}")
        yield self.models[ref.name]


def says(label: int) -> Answer:
    return lambda _: InferResponse({"scores": np.eye(2, dtype=np.float32)[[label]]}, FORM)


def fails(error: CrossfadeError) -> Answer:
    return lambda _: error


def asked(model: FadeModel, request_id: str = "") -> Any:
    (result,) = model.infer([InferRequest({"x": np.zeros((1, 2), np.float32)}, id=request_id)])
    return result


def label_of(result: InferResult) -> str:
    assert isinstance(result, InferResponse), result
    return FORM.labels["scores"][int(result.outputs["scores"].argmax())]


@pytest.fixture
def fade() -> Iterator[Callable[..., tuple[FadeModel, Recorder]]]:
    made: list[FadeModel] = []

    def make(
        models: Models, share: float, mirror: float = 0.0, key: Key | None = None
    ) -> tuple[FadeModel, Recorder]:
        manager: Any = models
        model = FadeModel(FORM, manager, (ModelRef("automl"), ModelRef("custom")), key)
        recorder = Recorder(mirrored=mirror > 0)
        model.set(share, mirror, recorder)
        made.append(model)
        return model, recorder

    yield make
    for model in made:
        model.close()


def evidence(recorder: Recorder) -> StepEvidence:
    found = recorder.changed()
    assert found is not None
    return found


def after_copies(model: FadeModel) -> None:
    assert model.mirror.wait_idle(10)


def test_the_share_is_kept(fade: Any) -> None:
    model, recorder = fade(Models(automl=Fake(says(0)), custom=Fake(says(1))), 25)
    labels = [label_of(asked(model)) for _ in range(2000)]
    assert 400 < labels.count("oak") < 600
    alone = evidence(recorder).alone.counts
    assert alone.tolist() == [labels.count("rose"), labels.count("oak")]
    assert recorder.changed() is None


def test_a_key_stays_at_its_member(fade: Any) -> None:
    models, key = Models(automl=Fake(says(0)), custom=Fake(says(1))), Key(KeySource.HEADER, "User")
    model, _ = fade(models, 50, key=key)
    assert model.metadata.headers == ("user",)
    inputs = {"x": np.zeros((1, 2), np.float32)}
    for user in range(20):
        parameters = {HEADER + "user": f"u{user}"}
        requests = [InferRequest(inputs, parameters=parameters) for _ in range(5)]
        assert len({label_of(result) for result in model.infer(requests)}) == 1


@pytest.mark.parametrize("error", [Internal("broken"), Unavailable("busy"), NotFound("gone")])
def test_the_candidates_failure_reaches_nobody_and_counts(fade: Any, error: Any) -> None:
    model, recorder = fade(Models(automl=Fake(says(0)), custom=Fake(fails(error))), 100)
    assert label_of(asked(model)) == "rose"
    assert evidence(recorder).errors_alone.counts.tolist() == [0, 0, 1]
    assert model.answered.values() == {("fallback",): 1}


def test_a_candidate_that_is_not_there(fade: Any) -> None:
    model, recorder = fade(Models(automl=Fake(says(0))), 100)
    assert label_of(asked(model)) == "rose"
    assert evidence(recorder).errors_alone.counts.tolist() == [0, 0, 1]


def test_after_the_primary_is_gone_the_candidates_reason_is_told(fade: Any) -> None:
    model, _ = fade(Models(custom=Fake(fails(Internal("broken")))), 100)
    assert asked(model).message == "broken"


def test_a_wrong_request_counts_for_nobody(fade: Any) -> None:
    wrong = fails(InvalidArgument("no picture"))
    for share in (0, 100):
        model, recorder = fade(Models(automl=Fake(wrong), custom=Fake(wrong)), share)
        assert asked(model).message == "no picture"
        assert recorder.changed() is None


def test_a_right_request_that_the_candidate_refuses_counts(fade: Any) -> None:
    wrong = fails(InvalidArgument("no picture"))
    model, recorder = fade(Models(automl=Fake(says(0)), custom=Fake(wrong)), 100)
    assert label_of(asked(model)) == "rose"
    assert evidence(recorder).errors_alone.counts.tolist() == [0, 0, 1]


def test_a_caller_who_went_away_is_not_asked_about_again(fade: Any) -> None:
    primary = Fake(says(0))
    model, recorder = fade(Models(automl=primary, custom=Fake(fails(Cancelled("gone")))), 100)
    assert isinstance(asked(model), Cancelled)
    assert primary.asked == 0
    assert recorder.changed() is None


@pytest.mark.parametrize("share", [0, 100])
def test_pairs_are_compared_whoever_answers(fade: Any, share: float) -> None:
    model, recorder = fade(Models(automl=Fake(says(0)), custom=Fake(says(1))), share, 100)
    assert label_of(asked(model, "a")) == ("oak" if share else "rose")
    after_copies(model)
    found = evidence(recorder)
    assert found.agreement.counts.tolist() == [1, 0]
    assert found.errors_pairs.counts.tolist() == [0, 1, 0]
    assert recorder.predictions() == [Prediction("a", "rose", "oak")]
    assert recorder.predictions() == []


def test_what_one_member_answered_alone_is_kept_without_a_mirror(fade: Any) -> None:
    models = Models(automl=Fake(says(0)), custom=Fake(says(1)))
    for member, share in ((PRIMARY, 0), (CANDIDATE, 100)):
        model, recorder = fade(models, share)
        asked(model, "a")
        asked(model)  # without an id nobody could tell the truth of it
        word = ("rose", None) if member == PRIMARY else (None, "oak")
        assert recorder.predictions() == [Prediction("a", *word)]


def test_both_members_are_in_the_trace() -> None:
    models = Models(old=Fake(says(0)), new=Fake(fails(Unavailable("broken"))))
    model = FadeModel(FORM, models, (ModelRef("old"), ModelRef("new")))  # type: ignore[arg-type]
    model.set(100, 0, None)
    root = KeptSpan()
    (result,) = model.infer([InferRequest({"x": np.zeros((1, 2), np.float32)}, trace=root)])
    assert isinstance(result, InferResponse)
    assert root.outcomes() == {"member candidate": "UNAVAILABLE", "member primary": "OK"}
    models.models.pop("old")
    (result,) = model.infer([InferRequest({"x": np.zeros((1, 2), np.float32)}, trace=root)])
    assert root.outcomes()["member primary"] == "NOT_FOUND"
    model.close()
