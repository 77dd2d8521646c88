"""Metrics in Prometheus' text form, made when they are asked for; nothing is kept twice.

Names: ``crossfade_*``; and Triton's ``nv_inference_*`` and TensorFlow Serving's so that existing
dashboards keep working.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from crossfade.ensemble.measures import Measure
from crossfade.runtimes.core.model import ModelMetadata
from crossfade.serving.metrics import ensembles
from crossfade.serving.metrics.statistics import LATENCY_BOUNDS_S, Statistics

CONTENT_TYPE = CONTENT_TYPE_LATEST
_MODEL = ("model", "version")
# What the native transport counts.
_TRANSPORT: Final[Mapping[str, tuple[Any, str]]] = {
    "connections": (GaugeMetricFamily, "Connections that are open"),
    "accepted": (CounterMetricFamily, "Connections that were opened"),
    "calls": (CounterMetricFamily, "Calls that were complete"),
    "refused": (CounterMetricFamily, "Calls that were refused before any handler saw them"),
    "pending": (GaugeMetricFamily, "Calls that are not answered yet"),
    "held_bytes": (GaugeMetricFamily, "Bytes of requests that are held"),
    "received_bytes": (CounterMetricFamily, "Bytes received"),
    "sent_bytes": (CounterMetricFamily, "Bytes sent"),
}


class Waiting(Protocol):
    """The part of a queue that is shown."""

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        ...


class Worker(Protocol):
    """A worker process that runs an isolated model, as far as metrics look at it."""

    @property
    def up(self) -> bool:
        """Whether it can answer now."""
        ...

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        ...

    def resident_bytes(self) -> int:
        """Its memory in RAM."""
        ...


class Observed(Protocol):
    """A served version, as far as metrics look at it."""

    @property
    def metadata(self) -> ModelMetadata:
        """Name and version, for the labels."""
        ...

    @property
    def statistics(self) -> Statistics:
        """The counters."""
        ...

    @property
    def queue(self) -> Waiting:
        """The queue."""
        ...

    @property
    def worker(self) -> Worker | None:
        """Of an isolated model."""
        ...

    @property
    def memory_bytes(self) -> int:
        """What it takes at most."""
        ...

    @property
    def measures(self) -> Callable[[], Iterable[Measure]]:
        """What an ensemble counts of its own."""
        ...


class Memory(Protocol):
    """What models take together."""

    @property
    def limit_bytes(self) -> int | None:
        """What they may."""
        ...

    @property
    def used_bytes(self) -> int:
        """What they do, at most."""
        ...

    @property
    def evictions(self) -> int:
        """Versions that were unloaded to make room for others."""
        ...


class Exposition:
    """Collects and formats the metrics of all served versions, and ``others``. Thread-safe.

    Args:
        transport: which host serves gRPC.
        counters: what that host counts, by the names in ``_TRANSPORT``.
        memory: of all models; ``None`` is not shown.
    """

    def __init__(
        self,
        served: Callable[[], Iterable[Observed]],
        ready: Callable[[], bool],
        others: Callable[[], Iterable[Metric]] = tuple,
        transport: str = "",
        counters: Callable[[], Mapping[str, int]] = dict,
        *,
        memory: Memory | None = None,
    ) -> None:
        self._served = served
        self._ready = ready
        self._others = others
        self._transport = transport
        self._counters = counters
        self._memory = memory
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition, in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        yield GaugeMetricFamily(
            "crossfade_ready", "1 while the server takes traffic", value=float(self._ready())
        )
        if self._transport:
            value = {"transport": self._transport}
            yield InfoMetricFamily("crossfade_transport", "Which host serves gRPC", value=value)
        yield from _network(self._counters())
        served = list(self._served())
        yield from _requests(served)
        yield from _latency(served)
        yield from _batches(served)
        yield _nodes(served)
        yield _members(served)
        yield from _workers(served)
        yield from _memory(served, self._memory)
        yield from _triton(served)
        yield _tensorflow(served)
        yield from ensembles.families((_labels(one), one.measures()) for one in served)
        yield from self._others()

    def describe(self) -> Iterator[Metric]:
        """Called by prometheus_client at registration: names are known only when collected."""
        return iter(())


def _network(counters: Mapping[str, int]) -> Iterator[Metric]:
    for name, (kind, help_text) in _TRANSPORT.items():
        if name in counters:
            yield kind(f"crossfade_grpc_{name}", help_text, value=counters[name])


def _labels(one: Observed) -> list[str]:
    return [one.metadata.name, str(one.metadata.version)]


def _requests(served: list[Observed]) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "crossfade_requests", "Requests answered, by code", labels=(*_MODEL, "code")
    )
    rows = CounterMetricFamily("crossfade_rows", "Rows of successful requests", labels=_MODEL)
    queue = CounterMetricFamily(
        "crossfade_queue_seconds", "Time that requests waited for the model", labels=_MODEL
    )
    waiting = GaugeMetricFamily("crossfade_queue_requests", "Requests that wait", labels=_MODEL)
    for one in served:
        counts, labels = one.statistics, _labels(one)
        total.add_metric([*labels, "OK"], counts.success)
        for code, count in sorted(counts.failure.items()):
            total.add_metric([*labels, code], count)
        rows.add_metric(labels, counts.rows)
        queue.add_metric(labels, counts.queue_ns * 1e-9)
        waiting.add_metric(labels, one.queue.waiting)
    yield from (total, rows, queue, waiting)


def _latency(served: list[Observed]) -> Iterator[Metric]:
    histogram = HistogramMetricFamily(
        "crossfade_request_seconds", "From a request's arrival to its answer", labels=_MODEL
    )
    bounds = [*(f"{bound:g}" for bound in LATENCY_BOUNDS_S), "+Inf"]
    for one in served:
        counts = one.statistics
        buckets = list(zip(bounds, itertools.accumulate(counts.latency_counts), strict=True))
        histogram.add_metric(_labels(one), buckets, counts.success_ns * 1e-9)
    yield histogram


def _batches(served: list[Observed]) -> Iterator[Metric]:
    runs = CounterMetricFamily("crossfade_runs", "Executions of the model", labels=_MODEL)
    seconds = CounterMetricFamily(
        "crossfade_run_seconds", "Time spent in executions of the model", labels=_MODEL
    )
    closed = CounterMetricFamily(
        "crossfade_batch_closed", "Why batches were closed", labels=(*_MODEL, "reason")
    )
    for one in served:
        counts, labels = one.statistics, _labels(one)
        found = list(counts.runs.values())
        runs.add_metric(labels, sum(count for count, _ in found))
        seconds.add_metric(labels, sum(total_ns for _, total_ns in found) * 1e-9)
        for reason, count in sorted(counts.closed.items()):
            closed.add_metric([*labels, reason], count)
    yield from (runs, seconds, closed)


def _nodes(served: list[Observed]) -> Metric:
    nodes = GaugeMetricFamily(
        "crossfade_nodes", "Nodes of the graph, by where they run", labels=(*_MODEL, "placed")
    )
    for one in served:
        for placed, count in one.metadata.nodes.items():
            nodes.add_metric([*_labels(one), placed], count)
    return nodes


def _members(served: list[Observed]) -> Metric:
    answers = CounterMetricFamily(
        "crossfade_member_requests",
        "What the members of an ensemble answered it, by code",
        labels=(*_MODEL, "member", "code"),
    )
    for one in served:
        for member, counts in one.statistics.members.items():
            for code, count in sorted(counts.copy().items()):
                answers.add_metric([*_labels(one), member, code], count)
    return answers


def _workers(served: list[Observed]) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "crossfade_worker_up", "1 while the model's worker process can answer", labels=_MODEL
    )
    restarts = CounterMetricFamily(
        "crossfade_worker_restarts", "Worker processes started again", labels=_MODEL
    )
    resident = GaugeMetricFamily(
        "crossfade_worker_resident_bytes", "Memory of the worker in RAM", labels=_MODEL
    )
    for one in served:
        if (worker := one.worker) is not None:
            labels = _labels(one)
            up.add_metric(labels, float(worker.up))
            restarts.add_metric(labels, worker.restarts)
            resident.add_metric(labels, worker.resident_bytes())
    yield from (up, restarts, resident)


def _memory(served: list[Observed], memory: Memory | None) -> Iterator[Metric]:
    each = GaugeMetricFamily(
        "crossfade_model_memory_bytes", "What a version takes at most, estimated", labels=_MODEL
    )
    for one in served:
        each.add_metric(_labels(one), one.memory_bytes)
    yield each
    if memory is None:
        return
    yield GaugeMetricFamily(
        "crossfade_memory_used_bytes", "What all models take at most", value=memory.used_bytes
    )
    if memory.limit_bytes is not None:
        yield GaugeMetricFamily(
            "crossfade_memory_budget_bytes", "What they may take", value=memory.limit_bytes
        )
    yield CounterMetricFamily(
        "crossfade_evictions", "Versions unloaded to make room", value=memory.evictions
    )


def _triton(served: list[Observed]) -> Iterator[Metric]:
    families: dict[str, Callable[[Statistics], float]] = {
        "nv_inference_request_success": lambda s: s.success,
        "nv_inference_count": lambda s: s.rows,
        "nv_inference_exec_count": lambda s: sum(count for count, _ in list(s.runs.values())),
        "nv_inference_request_duration_us": lambda s: s.success_ns // 1000,
        "nv_inference_queue_duration_us": lambda s: s.queue_ns // 1000,
        "nv_inference_compute_infer_duration_us": lambda s: s.infer_ns // 1000,
    }
    for name, value in families.items():
        yield _plain_counter(name, ((_labels(one), value(one.statistics)) for one in served))
    yield _plain_counter(
        "nv_inference_request_failure",
        (
            ([*_labels(one), reason], count)
            for one in served
            for reason, count in _triton_reasons(one.statistics).items()
        ),
        (*_MODEL, "reason"),
    )
    pending = GaugeMetricFamily("nv_inference_pending_request_count", "As Triton", labels=_MODEL)
    for one in served:
        pending.add_metric(_labels(one), one.queue.waiting)
    yield pending


def _tensorflow(served: list[Observed]) -> Metric:
    """TensorFlow Serving's one counter that everybody graphs; it sums the versions of a model."""
    totals: dict[tuple[str, str], int] = {}
    for one in served:
        counts = {"OK": one.statistics.success, **one.statistics.failure.copy()}
        for code, count in counts.items():
            key = (one.metadata.name, code)
            totals[key] = totals.get(key, 0) + count
    return _plain_counter(
        ":tensorflow:serving:request_count",
        ((list(key), count) for key, count in sorted(totals.items())),
        ("model_name", "status"),
        "As TensorFlow Serving",
    )


def _plain_counter(
    name: str,
    samples: Iterable[tuple[list[str], float]],
    labels: tuple[str, ...] = _MODEL,
    help_text: str = "As Triton",
) -> Metric:
    """A counter without the ``_total`` that the client library appends: others have none."""
    metric = Metric(name, help_text, "unknown")
    for values, value in samples:
        metric.add_sample(name, dict(zip(labels, values, strict=True)), value)
    return metric


def _triton_reasons(statistics: Statistics) -> dict[str, int]:
    reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    names = {
        "RESOURCE_EXHAUSTED": "REJECTED",
        "UNAVAILABLE": "REJECTED",
        "CANCELLED": "CANCELED",
        "INTERNAL": "BACKEND",
    }
    for code, count in list(statistics.failure.items()):
        reasons[names.get(code, "OTHER")] += count
    return reasons
