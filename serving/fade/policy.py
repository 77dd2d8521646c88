"""What happens next in a fade. Pure: a plan, a position, evidence and the time give one decision.

    RUNNING --advance--> RUNNING (next step) … --advance--> PROMOTED --retire--> RETIRED
       |  <--resume-- PAUSED                                    |
       |  ---pause-->    |                                      |
       +--roll_back------+------------ roll_back ---------------+--> ROLLED_BACK
       +--promote--------+--> PROMOTED

``decide`` advances and rolls back; the other actions, and what comes after a promotion, are an
operator's.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from crossfade.ensemble.sequential import Bounds, Mean, ratio_bounds, split_values
from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.serving.fade.evidence import StepEvidence
from crossfade.serving.fade.plan import Difference, Plan, Step

Action = Literal["start", "stay", "advance", "roll_back", "pause", "resume", "promote", "retire"]
Verdict = Literal["good", "open", "harmful"]


class Status(enum.Enum):
    """Where a fade is in its life; the last two are its ends.

    PROMOTED: the candidate answers, the primary where that fails. RETIRED: the candidate alone.
    """

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    PROMOTED = "PROMOTED"
    RETIRED = "RETIRED"
    ROLLED_BACK = "ROLLED_BACK"

    @property
    def live(self) -> bool:
        """Whether the fade still compares its members."""
        return self in {Status.RUNNING, Status.PAUSED}


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """Where a fade stands.

    Attributes:
        step: index of the plan's step; the last one after a promotion.
        step_started_s: when it began, in seconds since 1970.
    """

    status: Status
    step: int
    step_started_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One comparison.

    Attributes:
        metric: ``quality``, ``agreement``, ``errors``, ``latency_p99`` …, or ``traffic_share``,
            which never rolls back: without a mirror the fade only goes on if the split is true.
        good: the fade goes on once the bound on the bad side is better than this.
        harmful: it is rolled back once the bound on the good side is worse than this.
        alpha: the error that each of the bounds may make.
    """

    metric: str
    verdict: Verdict
    bounds: Bounds
    good: float
    harmful: float
    alpha: float


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What to do, why, and the numbers that led to it.

    Attributes:
        missing: all that an advance waits for.
    """

    action: Action
    reason: str
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()


_ALLOWED: Final[dict[Status, frozenset[Action]]] = {
    Status.RUNNING: frozenset({"advance", "roll_back", "pause", "promote"}),
    Status.PAUSED: frozenset({"roll_back", "resume", "promote"}),
    Status.PROMOTED: frozenset({"roll_back", "retire"}),
    Status.RETIRED: frozenset(),
    Status.ROLLED_BACK: frozenset(),
}

_LEADS_TO: Final = {
    "pause": Status.PAUSED,
    "resume": Status.RUNNING,
    "roll_back": Status.ROLLED_BACK,
    "retire": Status.RETIRED,
}


def decide(plan: Plan, position: Position, evidence: StepEvidence, now_s: float) -> Decision:
    """Decides on the current step.

    Harm shown by any comparison rolls back at once, in a paused fade, too. Otherwise a running
    fade advances by one step once its minimum time and samples are reached and every comparison
    is good.

    Args:
        plan: the fade's.
        position: where it stands.
        evidence: of this step alone, from all replicas.
        now_s: seconds since 1970.
    """
    if not position.status.live:
        return Decision("stay", "the fade is over")
    findings = tuple(_compare(plan, position.step, evidence))
    for finding in findings:
        if finding.verdict == "harmful":
            return Decision("roll_back", _said(finding, "harmful"), findings)
    missing = _missing(plan.steps[position.step], position, evidence, findings, now_s)
    if missing:
        return Decision("stay", missing[0], findings, missing)
    return Decision("advance", "every comparison is within its margin", findings)


def _missing(
    step: Step,
    position: Position,
    evidence: StepEvidence,
    findings: Sequence[Finding],
    now_s: float,
) -> tuple[str, ...]:
    """What an advance waits for, in the order in which it is usually reached."""
    found = ["the fade is paused"] if position.status is Status.PAUSED else []
    missing_s = position.step_started_s + step.min_time_s - now_s
    if missing_s > 0:
        found.append(f"the step's minimum time is over in {missing_s:.0f} s")
    samples = evidence.samples(step.mirrored)
    if samples < step.min_samples:
        found.append(f"{samples} of {step.min_samples} samples are there")
    found += [_said(f, "open") for f in findings if f.verdict == "open"]
    return tuple(found)


def follow(plan: Plan, position: Position, action: Action, now_s: float) -> Position:
    """Where an action leads.

    Raises:
        FailedPrecondition: the fade's status does not allow it.
    """
    if action not in _ALLOWED[position.status]:
        state = position.status.value.lower().replace("_", " ")
        first = "; promote it first" if action == "retire" and position.status.live else ""
        raise FailedPrecondition(
            f"the fade is {state}: {action.replace('_', ' ')} is not possible{first}"
        )
    last = len(plan.steps) - 1
    if action == "promote" or (action == "advance" and position.step == last):
        return Position(Status.PROMOTED, last, now_s)
    if action == "advance":
        return Position(Status.RUNNING, position.step + 1, now_s)
    return dataclasses.replace(position, status=_LEADS_TO[action])


def _compare(plan: Plan, step: int, evidence: StepEvidence) -> Iterator[Finding]:
    alpha, limits = plan.alpha_each, plan.guardrails
    mirrored, share = plan.steps[step].mirrored, plan.steps[step].traffic_percent / 100
    if mirrored:
        labels, failures = evidence.quality_pairs, evidence.errors_pairs
    else:
        labels = Mean(split_values(1 - share), evidence.quality_alone.counts)
        failures = Mean(split_values(share), evidence.errors_alone.counts)
        yield _split(evidence.alone.bounds(alpha), share, alpha)
    quality = _rate("quality", labels.bounds(alpha), limits.quality, alpha, larger_is_worse=False)
    enough = quality.bounds.count >= limits.quality.min_labels
    if enough or quality.verdict == "harmful":
        yield quality
    if not enough:
        agreed, least = evidence.agreement.bounds(alpha), limits.quality.min_agreement
        verdict: Verdict = (
            "harmful" if agreed.upper < least else "good" if agreed.lower >= least else "open"
        )
        yield Finding("agreement", verdict, agreed, least, least, alpha)
    yield _rate("errors", failures.bounds(alpha), limits.errors, alpha, larger_is_worse=True)
    for limit in limits.latency:
        ratio = ratio_bounds(*evidence.latency, limit.quantile, alpha)
        most = limit.max_ratio
        slow: Verdict = (
            "harmful" if ratio.lower > most else "good" if ratio.upper <= most else "open"
        )
        yield Finding(f"latency_p{100 * limit.quantile:g}", slow, ratio, most, most, alpha)


def _split(found: Bounds, share: float, alpha: float) -> Finding:
    """Whether requests were split as the plan says: if not, rates by arm mean nothing."""
    verdict: Verdict = "good" if found.lower <= share <= found.upper else "open"
    return Finding("traffic_share", verdict, found, share, share, alpha)


def _rate(
    metric: str, bounds: Bounds, limit: Difference, alpha: float, *, larger_is_worse: bool
) -> Finding:
    """Judges a difference, the candidate's rate minus the primary's."""
    if larger_is_worse:
        harmful, good = bounds.lower > limit.tolerance, bounds.upper < limit.margin
        limits = (limit.margin, limit.tolerance)
    else:
        harmful, good = bounds.upper < -limit.tolerance, bounds.lower > -limit.margin
        limits = (-limit.margin, -limit.tolerance)
    verdict: Verdict = "harmful" if harmful else "good" if good else "open"
    return Finding(metric, verdict, bounds, *limits, alpha)


def _said(finding: Finding, verdict: Verdict) -> str:
    found = finding.bounds
    between = f"between {found.lower:.4g} and {found.upper:.4g} after {found.count}"
    limit = finding.harmful if verdict == "harmful" else finding.good
    word = "beyond" if verdict == "harmful" else "not yet shown to be within"
    return f"{finding.metric} is {between}, {word} its limit {limit:.4g}"
