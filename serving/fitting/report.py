"""What a fit found, as plain values for JSON and as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from crossfade.ensemble.solved import SolvedGate
from crossfade.ensemble.weights import Candidate, WeightsReport
from crossfade.serving.fitting.sample import Sample
from crossfade.serving.fitting.weights import LearnedWeights

_FEW_ROWS: Final = 200


def plain(name: str, kind: str, sample: Sample, found: LearnedWeights | SolvedGate) -> Any:
    """The result as values that JSON has."""
    return {
        "ensemble": name,
        "kind": kind,
        "rows": sample.rows,
        "unlabelled": sample.unlabelled,
        "failed": {
            member: {"rows": one.rows, "reason": one.reason}
            for member, one in sample.failed.items()
        },
        "row_ms": dict(zip(sample.names, sample.row_ms, strict=True)),
        "report": json.loads(found.to_json()),
    }


def of_weights(name: str, sample: Sample, found: LearnedWeights) -> str:
    """The weights for people."""
    report = found.report
    lines = [*_head(name, sample), ""]
    lines += _table(
        ("member", "temperature", "log-loss", "ECE before", "ECE after", "ms a row"),
        [
            (
                one.name,
                f"{one.temperature:.3f}",
                f"{one.log_loss:.4f}",
                f"{one.calibration_error:.4f}",
                f"{one.calibrated_error:.4f}",
                f"{row_ms:.3g}",
            )
            for one, row_ms in zip(report.members, sample.row_ms, strict=True)
        ],
    )
    lines.append("")
    lines += _table(
        ("candidate", "log-loss", "above best", "std error", "shares"),
        [
            (
                ("* " if one.name == report.chosen else "  ") + one.name,
                f"{one.log_loss:.4f}",
                f"{one.excess:.4f}",
                f"{one.excess_standard_error:.4f}",
                ", ".join(f"{share:.3f}" for share in one.shares),
            )
            for one in report.candidates
        ],
    )
    lines += ["", *_choice(report, found.asked_for)]
    if sample.rows < _FEW_ROWS:
        lines.append(
            f"note      {sample.rows} rows are few: keep the best member unless you have hundreds"
        )
    return "\n".join(lines) + "\n"


def _choice(report: WeightsReport, asked_for: bool) -> Iterator[str]:
    chosen = _named(report, report.chosen)
    best = min(report.candidates, key=lambda one: one.log_loss)
    if asked_for:
        why = f"as asked for; {best.name} has the least log-loss"
    elif chosen is best:
        why = "the least log-loss; no simpler one is within one standard error of it"
        if chosen is report.candidates[0]:
            why = "the least log-loss, and the simplest"
    else:
        why = (
            f"the simplest within one standard error of the best, {best.name}:"
            f" {chosen.excess:.4f} more, standard error {chosen.excess_standard_error:.4f}"
        )
    yield f"chosen    {chosen.name}: {why}"
    nested = report.nested_log_loss
    yield f"estimate  log-loss {nested:.4f} on rows that neither choice nor fit has seen"
    member = min(report.members, key=lambda one: one.log_loss)
    change = nested / member.log_loss - 1 if member.log_loss else 0.0
    yield (
        f"          the best member alone, {member.name}, calibrated: {member.log_loss:.4f}"
        f" ({change:+.1%} with the ensemble)"
    )


def _named(report: WeightsReport, name: str) -> Candidate:
    return next(one for one in report.candidates if one.name == name)


def of_gate(name: str, sample: Sample, found: SolvedGate, unit: str) -> str:
    """The gate for people."""
    gate = found.report
    lines = [*_head(name, sample), ""]
    lines += _table(
        ("stage", "temperature", "reached by", "ms a row"),
        [
            (one, f"{found.temperatures[one]:.3f}", f"{share:.1%}", f"{row_ms:.3g}")
            for one, share, row_ms in zip(sample.names, gate.reach, sample.row_ms, strict=True)
        ],
    )
    sure = f"with probability {1 - gate.delta:.0%}"
    threshold = (
        "none can be shown to keep the budget: every row goes to the last stage"
        if gate.threshold is None
        else f"a stage answers where its {gate.measure.value} is at least {gate.threshold:g}"
    )
    lines += [
        "",
        f"threshold {threshold}",
        f"accuracy  {gate.accuracy:.2%}; the last stage alone {gate.full_accuracy:.2%}",
        f"harm      {gate.harm:.2%} of the rows, {sure} at most {gate.harm_bound:.2%}",
        f"cost      {gate.expected_cost:.4g}{unit} a row, {sure} at most {gate.cost_bound:.4g};"
        f" the last stage alone {gate.full_cost:.4g}"
        f" ({gate.expected_cost / gate.full_cost - 1:+.1%})",
        f"          solved on {gate.rows:,} rows, temperatures fitted on the other"
        f" {sample.rows - gate.rows:,}; what is guaranteed is the bound of the budget",
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, sample: Sample) -> Iterator[str]:
    yield f"{name}: {len(sample.names)} members, {sample.rows:,} rows"
    if sample.unlabelled:
        yield f"  {sample.unlabelled:,} rows of the data have no label and were left out"
    for member, one in sample.failed.items():
        yield f"  '{member}' fails on {one.rows:,} rows, left out for all: {one.reason}"
    if not sample.asked:
        yield "  predictions were kept from before; no member was asked"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text, the first and last to the left, numbers to the right."""
    lines = [head, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    last = len(head) - 1

    def cell(at: int, text: str) -> str:
        left = at == 0 or (at == last and head[at] == "shares")
        return text.ljust(widths[at]) if left else text.rjust(widths[at])

    return ["  ".join(cell(at, text) for at, text in enumerate(line)).rstrip() for line in lines]
