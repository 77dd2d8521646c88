"""TensorFlow Serving's distributions: what its dashboards graph beside the count of requests."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric

from crossfade.runtimes.core.model import InferResponse

_Labels = tuple[str, ...]
# TensorFlow Serving's own buckets: microseconds, and examples of one request.
_LATENCY_BOUNDS_US: Final = tuple(10 * 1.8**power for power in range(33))
_EXAMPLE_BOUNDS: Final = tuple(float(2**power) for power in range(20))


class TensorflowMetrics:
    """Counts what is asked through TensorFlow Serving's API and answered. Thread-safe.

    Only served models are counted, so that no client can make up labels.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = _Distribution(
            "request_latency", ("model_name", "API", "entrypoint"), _LATENCY_BOUNDS_US
        )
        self._runs = _Distribution(
            "runtime_latency", ("model_name", "API", "runtime"), _LATENCY_BOUNDS_US
        )
        self._examples = _Distribution("request_example_counts", ("model",), _EXAMPLE_BOUNDS)

    def record_requests(
        self, models: Sequence[str], api: str, entrypoint: str, duration_ns: int
    ) -> None:
        """Counts answered calls that came together; ``entrypoint`` is ``GRPC`` or ``REST``."""
        with self._lock:
            for model in models:
                self._requests.add((model, api, entrypoint), duration_ns / 1000)

    def record_runs(self, api: str, responses: Sequence[InferResponse]) -> None:
        """Counts the time that the model itself needed for each."""
        with self._lock:
            for response in responses:
                model = response.model
                self._runs.add((model.name, api, model.platform), response.timings.infer_ns / 1000)

    def record_examples(self, model: str, count: int) -> None:
        """Counts the examples of one request that was answered."""
        with self._lock:
            self._examples.add((model,), count)

    def collect(self) -> Iterator[Metric]:
        """The metrics, as prometheus_client has them."""
        with self._lock:
            yield self._requests.metric()
            yield self._runs.metric()
            yield self._examples.metric()
            yield self._examples.total("request_example_count_total")


class _Distribution:
    def __init__(self, name: str, labels: _Labels, bounds: tuple[float, ...]) -> None:
        self._name = f":tensorflow:serving:{name}"
        self._labels = labels
        self._bounds = bounds
        self._names = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        self._counts: dict[_Labels, list[int]] = {}
        self._sums: dict[_Labels, float] = {}

    def add(self, labels: _Labels, value: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def metric(self) -> Metric:
        family = HistogramMetricFamily(self._name, "As TensorFlow Serving", labels=self._labels)
        for labels, counts in self._counts.items():
            buckets = list(zip(self._names, itertools.accumulate(counts), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        return family

    def total(self, name: str) -> Metric:
        """The sum of all values, as a counter of its own."""
        metric = Metric(f":tensorflow:serving:{name}", "As TensorFlow Serving", "unknown")
        for labels, value in self._sums.items():
            metric.add_sample(metric.name, dict(zip(self._labels, labels, strict=True)), value)
        return metric
