"""The metrics of the fades that a server follows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from crossfade.serving.fade import documents
from crossfade.serving.fade.policy import Status
from crossfade.serving.fade.routes import Active


def collect(followed: Iterable[Active]) -> Iterator[Metric]:
    """``crossfade_fade_*``, by the name of the fade."""
    fades = list(followed)
    if not fades:
        return
    share = GaugeMetricFamily(
        "crossfade_fade_share_ratio", "Share of the requests for the candidate", labels=["fade"]
    )
    step = GaugeMetricFamily("crossfade_fade_step", "The plan's step, from 1", labels=["fade"])
    state = GaugeMetricFamily(
        "crossfade_fade_status", "1 for the fade's status, else 0", labels=["fade", "status"]
    )
    decisions = CounterMetricFamily(
        "crossfade_fade_decisions", "Decisions since the start", labels=["fade"]
    )
    requests = CounterMetricFamily(
        "crossfade_fade_requests", "Requests by who answered", labels=["fade", "answered_by"]
    )
    count = GaugeMetricFamily(
        "crossfade_fade_evidence_count",
        "Observations of this step, over all servers",
        labels=["fade", "metric"],
    )
    bounds = GaugeMetricFamily(
        "crossfade_fade_evidence",
        "What is known of a comparison: estimate, and bounds that hold at every look",
        labels=["fade", "metric", "value"],
    )
    for active in fades:
        fade = active.fade
        share.add_metric([fade.name], documents.share_percent(fade) / 100)
        step.add_metric([fade.name], fade.position.step + 1)
        for status in Status:
            state.add_metric([fade.name, status.value], float(status is fade.position.status))
        decisions.add_metric([fade.name], fade.version + 1)
        for answered_by, number in active.answered().items():
            requests.add_metric([fade.name, answered_by], number)
        for finding in active.findings if fade.position.status.live else ():
            count.add_metric([fade.name, finding.metric], finding.bounds.count)
            for value in ("estimate", "lower", "upper"):
                number = getattr(finding.bounds, value)
                if math.isfinite(number):
                    bounds.add_metric([fade.name, finding.metric, value], number)
    yield from (share, step, state, decisions, requests, count, bounds)
