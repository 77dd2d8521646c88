"""What is told of a fade, as plain values that JSON has."""

from __future__ import annotations

import dataclasses
from typing import Any

from crossfade.serving.fade.evidence import StepEvidence
from crossfade.serving.fade.policy import Decision, Status
from crossfade.serving.fade.records import Fade, Record, finite


def summary(fade: Fade) -> dict[str, Any]:
    """A fade in one line."""
    step = fade.plan.steps[fade.position.step]
    return {
        "name": fade.name,
        "from": fade.primary,
        "to": fade.candidate,
        "status": fade.position.status.value,
        "step": fade.position.step + 1,
        "steps": len(fade.plan.steps),
        "traffic_percent": share_percent(fade),
        "mirror_percent": step.mirror_percent if fade.position.status.live else 0.0,
        "version": fade.version,
    }


def status(
    fade: Fade, evidence: StepEvidence, decision: Decision, last: Record, now_s: float
) -> dict[str, Any]:
    """Where a fade stands, what is known, and what an advance waits for."""
    step, live = fade.plan.steps[fade.position.step], fade.position.status.live
    return {
        **summary(fade),
        "step_seconds": max(0.0, now_s - fade.position.step_started_s),
        "min_time_s": step.min_time_s,
        "samples": evidence.samples(step.mirrored),
        "min_samples": step.min_samples,
        "labels": evidence.labels(step.mirrored),
        "findings": [finite(dataclasses.asdict(each)) for each in decision.findings],
        "missing": list(decision.missing) if live else [],
        "last_decision": _decision(last),
        "label": fade.plan.label,
        "plan": fade.plan.model_dump(mode="json", exclude_none=True),
    }


def history(fade: Fade, records: list[Record]) -> dict[str, Any]:
    """All decisions of a fade, with the numbers that led to them."""
    decisions = [
        {**_decision(each), "findings": each.findings, "evidence": each.evidence}
        for each in records
    ]
    return {
        "name": fade.name,
        "from": fade.primary,
        "to": fade.candidate,
        "plan": fade.plan.model_dump(mode="json", exclude_none=True),
        "decisions": decisions,
    }


def share_percent(fade: Fade) -> float:
    """The part of the requests that the candidate answers."""
    state = fade.position.status
    if state.live:
        return fade.plan.steps[fade.position.step].traffic_percent
    return 0.0 if state is Status.ROLLED_BACK else 100.0


def _decision(record: Record) -> dict[str, Any]:
    return {
        "version": record.version,
        "at_s": record.at_s,
        "actor": record.actor,
        "action": record.action,
        "status": record.status.value,
        "step": record.step + 1,
        "reason": record.reason,
    }
