"""When members are answered at once, and when each is asked by itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from crossfade.ensemble.crew import Crew
from crossfade.ensemble.members import Known, Member
from crossfade.ensemble.team import Team
from crossfade.runtimes.core.errors import CrossfadeError, Unavailable
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
    ModelRef,
    Signature,
    TensorSpec,
)
from tests.spans import KeptSpan

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),), True)


class Echo:
    def __init__(self, name: str) -> None:
        self.metadata = ModelMetadata(name, 1, "fake", {DEFAULT_SIGNATURE: SIGNATURE})
        self.asked = 0

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        self.asked += 1
        return [InferResponse({"y": one.inputs["x"]}, self.metadata) for one in requests]

    def close(self) -> None:
        pass


class Live:
    def __init__(self, *models: Echo) -> None:
        self.models = {model.metadata.name: model for model in models}
        self.leases = 0

    @contextlib.contextmanager
    def lease(self, ref: ModelRef, deadline_s: float | None = None) -> Iterator[Model]:
        if ref.name not in self.models:
            raise Unavailable("gone")
        self.leases += 1
        try:
            yield self.models[ref.name]
        finally:
            self.leases -= 1

    def metadata(self, ref: ModelRef) -> ModelMetadata:
        return self.models[ref.name].metadata


class Both:
    """Answers for two with what they were fed, times ten; or not at all."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.models: Sequence[Model] = ()
        self.willing = True

    def infer(
        self, models: Sequence[Model], requests: Sequence[Sequence[InferRequest]]
    ) -> Sequence[Sequence[InferResult]] | None:
        assert self._live.leases == 2  # nobody is unloaded meanwhile
        self.models = models
        if not self.willing:
            return None
        return [
            [InferResponse({"y": 10 * one.inputs["x"]}, model.metadata) for one in asked]
            for model, asked in zip(models, requests, strict=True)
        ]

    def close(self) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.models = Echo("a"), Echo("b")
        self.live = Live(*self.models)
        self.both = Both(self.live)
        self.recorded: list[int] = []
        members = [
            Member("a", ModelRef("a"), inputs={"x": "image"}, outputs={"y": "scores"}),
            Member("b", ModelRef("b"), inputs={"x": "image"}, outputs={"y": "scores"}),
        ]
        looks = [Known(one, self.live.metadata(one.ref)) for one in members]
        self.team = Team(
            *(("a", "b"), looks, self.live, Crew(2)),
            lambda n, _: self.recorded.append(n),
            together=self.both,
        )

    def ask(
        self, *numbers: int, until_s: float | None = None, apart: bool = False
    ) -> list[float | CrossfadeError | None]:
        """What each member was answered with, for an image of 2."""
        same = [InferRequest({"image": np.float32([2])}, outputs=("scores",))]
        jobs = [(n, list(same) if apart else same) for n in numbers]
        found: list[float | CrossfadeError | None] = []
        for results in self.team.ask_all(jobs, until_s):
            assert results is not None
            one = results[0]
            found.append(
                one if isinstance(one, CrossfadeError) else float(one.outputs["scores"][0])
            )
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_are_answered_at_once_under_the_ensembles_names(bench: Bench) -> None:
    assert bench.ask(0, 1) == [20, 20]
    assert tuple(bench.both.models) == bench.models
    assert bench.recorded == [0, 1]
    assert [model.asked for model in bench.models] == [0, 0]


def test_some_of_them_others_orders_and_different_requests_are_asked_one_by_one(
    bench: Bench,
) -> None:
    assert bench.ask(0) == [2]
    assert bench.ask(1, 0) == [2, 2]
    assert bench.ask(0, 1, apart=True) == [2, 2]


def test_so_are_those_that_may_be_late(bench: Bench) -> None:
    assert bench.ask(0, 1, until_s=time.monotonic() + 20) == [2, 2]


def test_so_are_all_where_nobody_answers_for_them(bench: Bench) -> None:
    bench.both.willing = False
    assert bench.ask(0, 1) == [2, 2]
    assert bench.recorded == [0, 1]


def test_one_that_is_gone_fails_alone(bench: Bench) -> None:
    del bench.live.models["b"]
    first, second = bench.ask(0, 1)
    assert first == 2
    assert isinstance(second, Unavailable)


@pytest.mark.parametrize("willing", [True, False])
def test_each_member_has_its_span(bench: Bench, willing: bool) -> None:
    bench.both.willing = willing
    root, dropped = KeptSpan(), KeptSpan(recorded=False)
    image = {"image": np.float32([2])}
    requests = [
        InferRequest(image, outputs=("scores",), trace=root),
        InferRequest(image, outputs=("scores",), trace=dropped),
        InferRequest(image, outputs=("scores",)),
    ]
    bench.team.ask_all([(0, requests), (1, requests)])
    ended = [child.name for child in root.children if child.ended == "OK"]
    assert sorted(ended) == ["member a", "member b"]
    assert dropped.children == []


def test_a_member_that_is_gone_has_one_too(bench: Bench) -> None:
    root = KeptSpan()
    del bench.live.models["a"]
    bench.team.ask(0, [InferRequest({"image": np.float32([2])}, outputs=("scores",), trace=root)])
    assert root.outcomes() == {"member a": "UNAVAILABLE"}
