"""What ensembles count of their own, as metrics of Prometheus."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from crossfade.ensemble.measures import Histogram, Measure

_KINDS: Final[dict[str, Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def families(measured: Iterable[tuple[list[str], Iterable[Measure]]]) -> Iterator[Metric]:
    """The metrics of all ensembles, each name once.

    Args:
        measured: name and version of each ensemble, and what it counts.
    """
    found: dict[str, Any] = {}
    for labels, measures in measured:
        for measure in measures:
            family = found.get(measure.name)
            if family is None:
                names = ("model", "version", *measure.labels)
                name = f"crossfade_{measure.name}"
                family = _KINDS[measure.kind](name, measure.help, labels=names)
                found[measure.name] = family
            for values, value in measure.values.items():
                _add(family, [*labels, *values], value)
    yield from found.values()


def _add(family: Any, labels: list[str], value: float | Histogram) -> None:
    if not isinstance(value, Histogram):
        family.add_metric(labels, value)
        return
    counts, total = value.read()
    bounds = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
    buckets = list(zip(bounds, itertools.accumulate(counts), strict=True))
    family.add_metric(labels, buckets, total)
