"""How members are asked: timed, and without an exception."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from crossfade.ensemble.observing import Outcome
from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import InferRequest, InferResult, Model

_log = logging.getLogger(__name__)
# Has the member at a place answer requests, together.
Ask = Callable[[int, Sequence[InferRequest]], Sequence[InferResult]]


def timed(ask: Ask, member: int, requests: Sequence[InferRequest]) -> list[Outcome]:
    """Asks a member and takes the time."""
    began_ns = time.perf_counter_ns()
    results = ask(member, requests)
    latency_ms = (time.perf_counter_ns() - began_ns) * 1e-6
    return [Outcome(member, result, latency_ms) for result in results]


def asking(models: Sequence[Model]) -> Ask:
    """Asks these models; what they raise becomes the answer."""

    def ask(member: int, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        try:
            return models[member].infer(requests)
        except CrossfadeError as error:
            return [error] * len(requests)
        except Exception as error:
            return [Internal.hide(error, _log, "a member of an ensemble")] * len(requests)

    return ask
