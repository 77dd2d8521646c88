"""What happened to a request at the members that were asked, for whoever draws conclusions."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Protocol

from crossfade.ensemble.comparison import Comparison
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import InferRequest, InferResult

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What one member made of one request.

    Attributes:
        member: its place among the members; 0 is the primary.
        latency_ms: from asking the member to its answer. Requests that went to it together have
            the same.
    """

    member: int
    result: InferResult
    latency_ms: float

    @property
    def failed(self) -> bool:
        """Whether it is an error."""
        return isinstance(self.result, CrossfadeError)


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A request that two members were asked.

    Attributes:
        first: of the member with the lower place, whichever of them answered the client.
        second: of the other one.
        answered_by: the place of the member whose answer the client got.
    """

    request: InferRequest
    first: Outcome
    second: Outcome
    answered_by: int
    comparison: Comparison


class Observer(Protocol):
    """Takes what happened. Called from many threads at once, also on the way of a request: quick.

    What it raises is logged and changes nothing for the request.
    """

    def observe_pair(self, pair: Pair) -> None:
        """A request that two members were asked, once both have answered or failed."""
        ...

    def observe_alone(self, requests: Sequence[InferRequest], outcomes: Sequence[Outcome]) -> None:
        """Requests that only the member which answered was asked, with what became of each."""
        ...


def tell_pair(observers: Sequence[Observer], pair: Pair) -> None:
    """Tells every observer; raises nothing."""
    for observer in observers:
        try:
            observer.observe_pair(pair)
        except Exception:
            _log.exception("an observer of a pair failed")


def tell_alone(
    observers: Sequence[Observer], requests: Sequence[InferRequest], outcomes: Sequence[Outcome]
) -> None:
    """Tells every observer; raises nothing."""
    for observer in observers:
        try:
            observer.observe_alone(requests, outcomes)
        except Exception:
            _log.exception("an observer of a split failed")
