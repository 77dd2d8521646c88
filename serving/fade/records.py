"""What goes into a database of fades and comes out of it; needs none itself."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final, Literal

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.serving.fade.plan import Plan
from crossfade.serving.fade.policy import Position, Status

# Characters of an id, and of an answer or a truth.
MAX_REQUEST_ID: Final = 256
MAX_ANSWER: Final = 1024
Outcome = Literal["joined", "waiting", "repeated", "conflict"]


class Superseded(FailedPrecondition):
    """Another replica or an operator decided first: read the fade again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fade:
    """A fade as it was read.

    Attributes:
        name: under which clients call the pair.
        version: rises with each decision.
    """

    id: int
    name: str
    primary: str
    candidate: str
    plan: Plan
    position: Position
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One decision, as it was written.

    Attributes:
        version: of the fade after it; 0 is the start.
        at_s: when, in seconds since 1970.
        actor: who decided: ``policy`` or an operator.
        status, step: where it led.
        findings: the comparisons with their bounds, as plain values.
        evidence: the counts that they were made of, as ``StepEvidence.plain`` writes them.
    """

    version: int
    at_s: float
    actor: str
    action: str
    status: Status
    step: int
    reason: str
    findings: list[dict[str, Any]]
    evidence: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Retention:
    """How long a request waits for its truth, or a truth for its request.

    The table has at most ``max_rows`` rows, and for each process that writes 1,000 more or as
    many as one call brings.
    """

    max_age_s: float = 30 * 86_400.0
    max_rows: int = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """What the members answered to a request: both, or only the one that was asked."""

    request_id: str
    primary_answer: str | None = None
    candidate_answer: str | None = None


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: null is a bound or an estimate that is not known."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
