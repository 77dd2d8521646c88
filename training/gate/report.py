"""What the gate found, as lines for people and JSON for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from crossfade.training.intervals import Interval

Verdict = Literal["fix data", "go custom", "deploy AutoML", "undecided"]
Level = Literal["blocks", "warns", "fine"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One statistic against its threshold.

    Attributes:
        check: its name, the same as the policy's key where there is one.
        level: whether it blocks a training.
        says: a sentence with the numbers.
        numbers: the same for programs.
    """

    check: str
    level: Level
    says: str
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What the gate found.

    Attributes:
        verdict: what to do.
        because: why, in a sentence.
        metric: the baseline's, by AutoML's name.
        value: of the baseline, out of fold.
        guess: what guessing reaches: the most frequent class, or the mean.
        goal: what was asked for.
        progress: of the baseline from the guess (0) to the goal (1).
        rows: that were studied, of how many.
        findings: in the order of the policy.
        review: rows of the file to look at, from 1, by what is suspicious about them.
        seed: of all that was drawn.
    """

    verdict: Verdict
    because: str
    metric: str
    value: Interval
    guess: float
    goal: float | None
    progress: Interval | None
    rows: tuple[int, int]
    findings: Sequence[Finding]
    review: Mapping[str, Sequence[int]]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; infinite ends are left out."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]  # a dict of a dataclass

    def lines(self) -> list[str]:
        """For people."""
        marks = {"blocks": "BLOCKS", "warns": "warns ", "fine": "fine  "}
        studied, of = self.rows
        goal = "" if self.goal is None else f", goal {self.goal:g}"
        lines = [
            f"verdict: {self.verdict}",
            f"  {self.because}",
            f"{self.metric} {self.value.value:.5g} ({self.value.low:.5g} to {self.value.high:.5g});"
            f" guessing {self.guess:.5g}{goal}; {studied:,} of {of:,} rows",
        ]
        if self.progress is not None:
            lines.append(
                f"  {self.progress.value:.0%} of the way from guessing to the goal"
                f" ({self.progress.low:.0%} to {self.progress.high:.0%})"
            )
        lines += [f"  {marks[f.level]} {f.check}: {f.says}" for f in self.findings]
        for what, rows in self.review.items():
            shown = ", ".join(map(str, rows[:10])) + (" …" if len(rows) > 10 else "")
            lines.append(f"  look at rows ({what}): {shown}")
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
