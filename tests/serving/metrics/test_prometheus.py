"""The exposition: what Prometheus' own parser reads of it, and names that dashboards know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crossfade.ensemble.measures import Histogram, Measure, Tally
from crossfade.runtimes.core.errors import Cancelled, Internal, InvalidArgument, ResourceExhausted
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelRef,
    Timings,
)
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.metrics.prometheus import CONTENT_TYPE, Exposition
from crossfade.serving.metrics.statistics import LATENCY_BOUNDS_S, Statistics
from crossfade.serving.repository.source import LocalSource
from crossfade.serving.tensors.raw import RawTensor

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
MS = 1_000_000


def record(counts: Statistics, duration_ns: int, queue_ns: int, infer_ns: int, rows: int) -> None:
    answer = InferResponse({}, ModelMetadata("m", 1, "fake", {}), Timings(queue_ns, infer_ns))
    counts.record_requests(duration_ns, [(InferRequest({}, rows=rows), answer)])


class Queue:
    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


class Worker:
    def __init__(self, up: bool, restarts: int, resident: int) -> None:
        self.up, self.restarts, self._resident = up, restarts, resident

    def resident_bytes(self) -> int:
        return self._resident


@dataclasses.dataclass
class Memory:
    limit_bytes: int | None
    used_bytes: int
    evictions: int


class Version:
    """A served version, as far as metrics look at it."""

    def __init__(self, name: str, version: int, waiting: int = 0) -> None:
        self.metadata = ModelMetadata(name, version, "fake", {})
        self.statistics = Statistics()
        self.queue = Queue(waiting)
        self.worker: Worker | None = None
        self.memory_bytes = 0
        self.measures: Callable[[], Iterable[Measure]] = tuple


def parse(exposition: Exposition) -> Samples:
    families = list(text_string_to_metric_families(exposition.text().decode()))
    samples = [sample for family in families for sample in family.samples]
    found = {(s.name, frozenset(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples), "no sample stands twice"
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[(name, frozenset(labels.items()))]


def test_an_empty_server() -> None:
    for ready in (True, False):
        samples = parse(Exposition(list, lambda ready=ready: ready))  # type: ignore[misc]
        assert samples == {("crossfade_ready", frozenset()): float(ready)}


@pytest.fixture
def busy() -> Version:
    one = Version("flowers", 3, waiting=4)
    counts = one.statistics
    record(counts, 10 * MS, 4 * MS, 5 * MS, 3)
    record(counts, 30 * MS, 6 * MS, 9 * MS, 1)
    counts.record_run(4, 14 * MS, "full")
    counts.record_run(1, 1 * MS, "idle")
    counts.record_failure(InvalidArgument("x"), 1)
    counts.record_failure(ResourceExhausted("x"), 1)
    counts.record_failure(ResourceExhausted("x"), 1)
    counts.record_failure(Cancelled("x"), 1)
    counts.record_failure(Internal("x"), 1)
    return one


def test_our_names(busy: Version) -> None:
    samples = parse(Exposition(lambda: [busy], lambda: True))
    me = {"model": "flowers", "version": "3"}
    assert value(samples, "crossfade_ready") == 1
    assert value(samples, "crossfade_requests_total", **me, code="OK") == 2
    assert value(samples, "crossfade_requests_total", **me, code="RESOURCE_EXHAUSTED") == 2
    assert value(samples, "crossfade_requests_total", **me, code="INVALID_ARGUMENT") == 1
    assert value(samples, "crossfade_rows_total", **me) == 4
    assert value(samples, "crossfade_queue_seconds_total", **me) == pytest.approx(0.010)
    assert value(samples, "crossfade_queue_requests", **me) == 4
    assert value(samples, "crossfade_runs_total", **me) == 2
    assert value(samples, "crossfade_run_seconds_total", **me) == pytest.approx(0.015)
    assert value(samples, "crossfade_batch_closed_total", **me, reason="full") == 1
    assert value(samples, "crossfade_batch_closed_total", **me, reason="idle") == 1


def test_the_histogram_is_one(busy: Version) -> None:
    samples = parse(Exposition(lambda: [busy], lambda: True))
    me = {"model": "flowers", "version": "3"}
    buckets = [
        value(samples, "crossfade_request_seconds_bucket", **me, le=f"{bound:g}")
        for bound in LATENCY_BOUNDS_S
    ]
    assert buckets == sorted(buckets)
    assert buckets == [float((bound >= 0.01) + (bound >= 0.03)) for bound in LATENCY_BOUNDS_S]
    assert value(samples, "crossfade_request_seconds_bucket", **me, le="+Inf") == 2
    assert value(samples, "crossfade_request_seconds_count", **me) == 2
    assert value(samples, "crossfade_request_seconds_sum", **me) == pytest.approx(0.040)


def test_tritons_names(busy: Version) -> None:
    samples = parse(Exposition(lambda: [busy], lambda: True))
    me = {"model": "flowers", "version": "3"}
    found = {
        name: v
        for (name, labels), v in samples.items()
        if name.startswith("nv_") and labels == frozenset(me.items())
    }
    assert found == {
        "nv_inference_request_success": 2,
        "nv_inference_count": 4,
        "nv_inference_exec_count": 2,
        "nv_inference_request_duration_us": 40_000,
        "nv_inference_queue_duration_us": 10_000,
        "nv_inference_compute_infer_duration_us": 14_000,
        "nv_inference_pending_request_count": 4,
    }
    reasons = {
        reason: value(samples, "nv_inference_request_failure", **me, reason=reason)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    assert reasons == {"REJECTED": 2, "CANCELED": 1, "BACKEND": 1, "OTHER": 1}


def test_every_version_has_its_own_samples() -> None:
    versions = [Version("a", 1), Version("a", 2), Version("b", 1)]
    for count, one in enumerate(versions, 1):
        for _ in range(count):
            record(one.statistics, MS, 0, 0, 1)
    samples = parse(Exposition(lambda: versions, lambda: True))
    assert [
        value(samples, "nv_inference_request_success", model=m, version=v)
        for m, v in (("a", "1"), ("a", "2"), ("b", "1"))
    ] == [1, 2, 3]


def test_what_is_unloaded_is_gone() -> None:
    live = [Version("a", 1)]
    exposition = Exposition(lambda: live, lambda: True)
    assert any(name.startswith("nv_") for name, _ in parse(exposition))
    live.clear()
    assert not any(name.startswith("nv_") for name, _ in parse(exposition))


def test_the_content_type_is_the_one_of_the_text_format() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=")


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    content = {
        "inputs": [{"name": "x", "shape": [-1]}],
        "behaviour": "fail",
        "fail": {"code": "INTERNAL", "when": {"input": "x", "value": 13}},
    }
    (folder / "fake.yaml").write_text(yaml.safe_dump(content))
    manager = Manager([LocalSource(tmp_path)], Mode.NONE)
    manager.start()
    yield DataPlane(manager)
    manager.close()


def test_counters_of_a_served_model_are_right_after_each_request(plane: DataPlane) -> None:
    exposition = Exposition(plane.manager.served, lambda: plane.ready)
    me = {"model": "m", "version": "1"}

    def ask(*values: float) -> Any:
        data = np.array(values, np.float32).tobytes()
        raw = RawTensor("x", "FP32", (len(values),), data)
        return plane.infer([Query(ModelRef("m"), [raw])])

    def seen() -> tuple[float, ...]:
        samples = parse(exposition)
        return (
            value(samples, "nv_inference_request_success", **me),
            value(samples, "nv_inference_count", **me),
            value(samples, "nv_inference_exec_count", **me),
            value(samples, "nv_inference_request_failure", **me, reason="BACKEND"),
            value(samples, "nv_inference_request_failure", **me, reason="OTHER"),
        )

    assert seen() == (0, 0, 0, 0, 0)
    ask(1)
    assert seen() == (1, 1, 1, 0, 0)
    ask(1, 2, 3)
    assert seen() == (2, 4, 2, 0, 0)
    ask(13)
    assert seen() == (2, 4, 2, 1, 0)
    plane.infer([Query(ModelRef("m"), [])])
    assert seen() == (2, 4, 2, 1, 1)
    duration_us = value(parse(exposition), "nv_inference_request_duration_us", **me)
    assert 0 <= duration_us < 10e6


def test_the_transport_shows_itself() -> None:
    counters = {"connections": 3, "refused": 2, "calls": 7, "not shown": 1}
    samples = parse(Exposition(list, lambda: True, transport="native", counters=lambda: counters))
    assert value(samples, "crossfade_transport_info", transport="native") == 1
    assert value(samples, "crossfade_grpc_connections") == 3
    assert value(samples, "crossfade_grpc_refused_total") == 2
    assert value(samples, "crossfade_grpc_calls_total") == 7
    assert not any("shown" in name for name, _ in samples)


def test_workers_and_memory() -> None:
    inside, isolated = Version("a", 1), Version("b", 2)
    isolated.worker = Worker(False, 3, 4096)
    inside.memory_bytes = 77
    memory = Memory(1000, 77, 5)
    exposition = Exposition(lambda: [inside, isolated], lambda: True, memory=memory)
    samples = parse(exposition)
    labels = {"model": "b", "version": "2"}
    assert value(samples, "crossfade_worker_up", **labels) == 0
    assert value(samples, "crossfade_worker_restarts_total", **labels) == 3
    assert value(samples, "crossfade_worker_resident_bytes", **labels) == 4096
    assert sum(name == "crossfade_worker_up" for name, _ in samples) == 1
    assert value(samples, "crossfade_model_memory_bytes", model="a", version="1") == 77
    assert value(samples, "crossfade_memory_used_bytes") == 77
    assert value(samples, "crossfade_memory_budget_bytes") == 1000
    assert value(samples, "crossfade_evictions_total") == 5
    memory.limit_bytes = None
    assert ("crossfade_memory_budget_bytes", frozenset()) not in parse(exposition)


def test_what_ensembles_count_of_their_own() -> None:
    one, other, leaf = Version("a", 1), Version("b", 2), Version("c", 3)
    tally, ratios = Tally(), Histogram((-0.5, 1.0))
    tally.add("red", count=3)
    for ratio in (-1, 0.5, 1, 7):
        ratios.observe(ratio)
    one.measures = lambda: [
        Measure("split_requests", "counter", "Requests", ("member",), tally.values()),
        Measure("shadow_waiting", "gauge", "Copies", (), {(): 2.0}),
    ]
    other.measures = lambda: [
        Measure("split_requests", "counter", "Requests", ("member",), {("blue",): 4.0}),
        Measure("shadow_latency_ratio", "histogram", "Ratio", ("member",), {("blue",): ratios}),
    ]

    samples = parse(Exposition(lambda: [one, other, leaf], lambda: True))

    name = "crossfade_split_requests_total"
    assert value(samples, name, model="a", version="1", member="red") == 3
    assert value(samples, name, model="b", version="2", member="blue") == 4
    assert value(samples, "crossfade_shadow_waiting", model="a", version="1") == 2
    buckets = [
        value(
            samples,
            "crossfade_shadow_latency_ratio_bucket",
            model="b",
            version="2",
            member="blue",
            le=le,
        )
        for le in ("-0.5", "1", "+Inf")
    ]
    assert buckets == [1, 3, 4]
