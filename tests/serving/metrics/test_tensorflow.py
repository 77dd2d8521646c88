"""TensorFlow Serving's distributions: names, labels and buckets as its dashboards know them."""

from __future__ import annotations

import threading

from prometheus_client.parser import text_string_to_metric_families

from crossfade.runtimes.core.model import InferResponse, ModelMetadata, Timings
from crossfade.serving.metrics.prometheus import Exposition
from crossfade.serving.metrics.tensorflow import TensorflowMetrics

P = ":tensorflow:serving:"


def read(metrics: TensorflowMetrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = Exposition(list, lambda: True, metrics.collect).text().decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def test_requests() -> None:
    metrics = TensorflowMetrics()
    for duration_us in (5, 10, 11, 40_000_000):
        metrics.record_requests(["m"], "Predict", "REST", duration_us * 1000)
    metrics.record_requests(["m"], "Predict", "GRPC", 1000)
    found = read(metrics)
    labels = {"model_name": "m", "API": "Predict", "entrypoint": "REST"}
    assert found[(f"{P}request_latency_count", frozenset(labels.items()))] == 4
    assert found[(f"{P}request_latency_sum", frozenset(labels.items()))] == 40_000_026
    buckets = {
        float(dict(key)["le"]): value
        for (name, key), value in found.items()
        if name == f"{P}request_latency_bucket" and ("entrypoint", "REST") in key
    }
    assert len(buckets) == 34
    assert list(buckets)[:3] == [10, 18, 32.4]
    assert (buckets[10], buckets[18], buckets[float("inf")]) == (2, 3, 4)
    assert sorted(buckets.values()) == list(buckets.values())


def test_runs_and_examples() -> None:
    metrics = TensorflowMetrics()
    model = ModelMetadata("m", 1, "tensorflow_savedmodel", {})
    metrics.record_runs("Classify", [InferResponse({}, model, timings=Timings(infer_ns=7_000))])
    for count in (1, 3):
        metrics.record_examples("m", count)
    found = read(metrics)
    labels = {"model_name": "m", "API": "Classify", "runtime": "tensorflow_savedmodel"}
    assert found[(f"{P}runtime_latency_sum", frozenset(labels.items()))] == 7
    model_only = frozenset({("model", "m")})
    assert found[(f"{P}request_example_counts_count", model_only)] == 2
    assert found[(f"{P}request_example_counts_sum", model_only)] == 4
    assert found[(f"{P}request_example_count_total", model_only)] == 4


def test_from_many_threads_while_it_is_read() -> None:
    metrics = TensorflowMetrics()

    def work(index: int) -> None:
        for turn in range(500):
            metrics.record_requests([f"m{turn % 7}"], "Predict", "GRPC", index * 1000)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        read(metrics)
    counts = [v for (name, _), v in read(metrics).items() if name == f"{P}request_latency_count"]
    assert sum(counts) == 2000
