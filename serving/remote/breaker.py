"""When a server that fails is left alone. Pure: states and times in, states out.

closed     calls go out; so many failures in a row open it
open       no call goes out until the pause is over
half-open  one call goes out to see; its success closes the breaker, its failure opens it again
"""

from __future__ import annotations

import dataclasses
import enum


class Phase(enum.Enum):
    """What the breaker lets through: all, nothing, or one call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Verdict(enum.Enum):
    """What a call said of the server; ``UNKNOWN`` where it was given up for other reasons."""

    WELL = "well"
    ILL = "ill"
    UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """When to open, and for how long."""

    failures: int
    pause_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Breaker:
    """One state. Times are of any monotonic clock, in seconds.

    Attributes:
        failures: in a row, while closed.
        opens_s: until when it is open.
        generation: of this phase; what calls of an earlier one report does not count.
    """

    rule: Rule
    phase: Phase = Phase.CLOSED
    failures: int = 0
    opens_s: float = 0.0
    generation: int = 0

    def admit(self, now_s: float) -> tuple[Breaker, int | None]:
        """Returns the state after a call has asked, and the call's ticket if it may go out."""
        if self.phase is Phase.CLOSED:
            return self, self.generation
        if self.phase is Phase.HALF_OPEN or now_s < self.opens_s:
            return self, None
        probing = self._next(Phase.HALF_OPEN)
        return probing, probing.generation

    def report(self, ticket: int, verdict: Verdict, now_s: float) -> Breaker:
        """Returns the state after the call with that ticket has ended."""
        if ticket != self.generation:
            return self
        if self.phase is Phase.CLOSED:
            return self._counted(verdict, now_s)
        if verdict is Verdict.WELL:
            return self._next(Phase.CLOSED)
        pause_s = self.rule.pause_s if verdict is Verdict.ILL else 0.0  # else another may try
        return self._next(Phase.OPEN, now_s + pause_s)

    def _counted(self, verdict: Verdict, now_s: float) -> Breaker:
        if verdict is Verdict.UNKNOWN:
            return self
        failures = 0 if verdict is Verdict.WELL else self.failures + 1
        if failures >= self.rule.failures:
            return self._next(Phase.OPEN, now_s + self.rule.pause_s)
        return dataclasses.replace(self, failures=failures)

    def _next(self, phase: Phase, opens_s: float = 0.0) -> Breaker:
        return Breaker(self.rule, phase, 0, opens_s, self.generation + 1)
