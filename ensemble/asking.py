"""How a member is asked: by a lease for each call, timed, and without an exception."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from crossfade.ensemble.observing import Outcome
from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import InferRequest, InferResult, Model

_log = logging.getLogger(__name__)


def ask(model: Model, member: int, requests: Sequence[InferRequest]) -> list[Outcome]:
    """Asks a member; raises nothing.

    Args:
        model: the member.
        member: its place.
        requests: go to it together.
    """
    began_ns = time.perf_counter_ns()
    results: Sequence[InferResult]
    try:
        results = model.infer(requests)
    except CrossfadeError as error:
        results = [error] * len(requests)
    except Exception as error:
        results = [Internal.hide(error, _log, "a member of an ensemble")] * len(requests)
    latency_ms = (time.perf_counter_ns() - began_ns) * 1e-6
    return [Outcome(member, result, latency_ms) for result in results]
