"""How a member is asked: timed, and without an exception."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from crossfade.ensemble.observing import Outcome
from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import InferRequest, InferResult, Model

_log = logging.getLogger(__name__)
# Has the member at a place answer requests, together.
Ask = Callable[[int, Sequence[InferRequest]], list[Outcome]]


def ask(model: Model, member: int, requests: Sequence[InferRequest]) -> list[Outcome]:
    """Asks a Model; raises nothing.

    Args:
        model: the member.
        member: its place.
        requests: go to it together.
    """

    def infer() -> Sequence[InferResult]:
        try:
            return model.infer(requests)
        except CrossfadeError as error:
            return [error] * len(requests)
        except Exception as error:
            return [Internal.hide(error, _log, "a member of an ensemble")] * len(requests)

    return timed(infer, member)


def timed(infer: Callable[[], Sequence[InferResult]], member: int) -> list[Outcome]:
    """What the member at a place answers, and the time that it takes."""
    began_ns = time.perf_counter_ns()
    results = infer()
    latency_ms = (time.perf_counter_ns() - began_ns) * 1e-6
    return [Outcome(member, result, latency_ms) for result in results]
