"""Evidence for tests: that of a candidate that is as good as the primary, and of worse ones."""

from __future__ import annotations

import numpy as np

from crossfade.serving.fade.evidence import CANDIDATE, PRIMARY, StepEvidence
from crossfade.serving.fade.plan import Plan, parse

PLAN: Plan = parse(
    """
    steps:
      - {traffic_percent: shadow, min_time_s: 60, min_samples: 1000}
      - {traffic_percent: 25, min_time_s: 60, min_samples: 1000, mirror_percent: 0}
      - {traffic_percent: 100, min_time_s: 60, min_samples: 1000}
    guardrails:
      latency: [{quantile: 0.5, max_ratio: 1.25}]
    """,
    "fade.yaml",
)


def observed(
    pairs: int = 0,
    alone: int = 0,
    *,
    agreement: float = 1.0,
    candidate_errors: float = 0.0,
    slower: float = 1.0,
    labels: tuple[int, int, int] = (0, 0, 0),
    labels_alone: tuple[int, int, int] = (0, 0, 0),
    share: float = 0.25,
) -> StepEvidence:
    """Counts as exact as the numbers allow: nothing here is random but the latencies.

    Args:
        pairs: requests that both members were asked.
        alone: requests that one member was asked alone.
        agreement: share of the pairs with the same answer.
        candidate_errors: share of requests that fail at the candidate; none fails at the primary.
        slower: factor between the latencies of the candidate and the primary.
        labels: pairs in which the candidate was worse, the same, better.
        labels_alone: answers alone: of the candidate and wrong, right, of the primary and wrong.
        share: of the requests alone that went to the candidate.
    """
    rng = np.random.default_rng(11)
    found = StepEvidence()
    failed = np.zeros((pairs, 2), np.bool_)
    failed[: round(candidate_errors * pairs), CANDIDATE] = True
    times = rng.lognormal(2, 0.2, (pairs, 2)) * [1.0, slower]
    agreed = np.arange(pairs)[::-1] < round(agreement * pairs)
    found.observe_pairs(agreed, failed, times)
    asked = round(share * alone)
    for member, count in ((PRIMARY, alone - asked), (CANDIDATE, asked)):
        lost = np.arange(count) < round(member * candidate_errors * count)
        found.observe_alone(member, lost, rng.lognormal(2, 0.2, count) * (slower if member else 1))
    found.quality_pairs.counts = found.quality_pairs.counts + np.array(labels)
    found.quality_alone.counts = found.quality_alone.counts + np.array(labels_alone)
    return found
