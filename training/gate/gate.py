"""Runs the checks and decides: fix the data, go custom, or deploy what AutoML made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.training import intervals
from crossfade.training.baseline.metrics import Task
from crossfade.training.baseline.tabular import read_target
from crossfade.training.gate import label_noise
from crossfade.training.gate.duplicates import Duplicates, duplicates
from crossfade.training.gate.label_noise import LabelNoise
from crossfade.training.gate.leakage import single_columns
from crossfade.training.gate.noise_features import column_uses
from crossfade.training.gate.policy import Policy
from crossfade.training.gate.report import Finding, Level, Report, Verdict
from crossfade.training.gate.study import Study
from crossfade.training.intervals import Interval, wilson
from crossfade.training.transforms import plan
from crossfade.training.transforms.plan import PlannedColumn
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]
Told = Callable[[str, float], None]
METRICS: Final = {"regression": "rootMeanSquaredError", "classification": "accuracy"}
_SHOWN_ROWS: Final = 200
# Shares of the work, for the bar.
_LEAKAGE, _NOISE = (0.15, 0.6), (0.6, 1.0)


def study_data(
    table: Table,
    target: str,
    task: Task,
    policy: Policy,
    *,
    goal: float | None = None,
    columns: Sequence[PlannedColumn] | None = None,
    split_column: str | None = None,
    seed: int = 0,
    told: Told = lambda _, __: None,
) -> Report:
    """Studies a table.

    Args:
        table: all rows, as they were read.
        target: the column to predict.
        task: what it is.
        policy: what is decided by.
        goal: the accuracy (the largest root mean squared error of a regression) that is wanted.
        columns: the features; inferred without.
        split_column: says TEST in rows that the training must not have.
        seed: of all that is drawn.
        told: what is being done, and how far it is, 0..1.

    Raises:
        WrongTable: a column is missing, or the target has too few rows or too many classes.
        InvalidArgument: the goal is no better than a guess, or no accuracy.
    """
    if goal is not None and task == "classification" and not 0 < goal <= 1:
        raise InvalidArgument(
            f"a goal of {goal:g} is no accuracy: that is a share of the rows, such as 0.95"
        )
    texts = table.texts(target)
    known = np.flatnonzero(texts != "")
    missing = wilson(len(texts) - len(known), len(texts))
    aside = [target, *filter(None, [split_column])]
    features = table.without(*aside)
    rows = _drawn(known, policy.max_rows, seed)
    chosen = table.rows(rows)
    values, classes = read_target(chosen, target, task)
    planned = columns if columns is not None else plan.infer(features.rows(rows))
    study = Study(task, features.rows(rows), planned, values, classes, seed)

    told("rows that repeat", 0.0)
    test = None
    if split_column is not None:
        words = chosen.texts(split_column).tolist()
        test = np.array([word.upper() == "TEST" for word in words], bool)
    copies = duplicates(study.table, values, test, regression=task == "regression")
    findings = [*_basics(study, policy, missing), *_of_copies(copies, policy)]
    review = {"repeated across targets or splits": rows[copies.rows]}
    if _measurable(study):
        told("a baseline", 0.05)
        predictions = study.out_of_fold(planned)
        value, guess, better = _against_guess(study, predictions)
        findings.append(better)
        noise, suspicious = _labels(study, predictions, policy)
        findings.append(noise)
        review["target unlike all that is known"] = rows[suspicious]
        findings += _columns(study, policy, told)
    else:
        value, guess = Interval(0.0, 0.0, 0.0), 0.0
    told("done", 1.0)
    progress = None if goal is None else _progress(task, value, guess, goal)
    verdict, because = _decide(findings, progress, policy)
    return Report(
        verdict,
        because,
        METRICS[task],
        value,
        guess,
        goal,
        progress,
        (len(rows), len(texts)),
        findings,
        {
            what: [int(r) + 1 for r in found[:_SHOWN_ROWS]]
            for what, found in review.items()
            if len(found)
        },
        seed,
    )


def _drawn(known: Array, most: int, seed: int) -> Array:
    if len(known) <= most:
        return known
    return np.sort(np.random.default_rng(seed).choice(known, most, replace=False))


def _measurable(study: Study) -> bool:
    """Whether a cross-validation is possible at all."""
    if study.task == "regression":
        return bool(study.target.min() < study.target.max())
    counts = np.bincount(study.target)
    return len(counts) > 1 and int(counts.min()) > 1


def _finding(check: str, bad: bool, says: str, level: Level = "blocks", **numbers: Any) -> Finding:
    return Finding(check, level if bad else "fine", says, numbers)


def _basics(study: Study, policy: Policy, missing: Interval) -> list[Finding]:
    rows = len(study.target)
    found = [
        _finding("min_rows", rows < policy.min_rows, f"{rows:,} rows with a target", rows=rows),
        _finding(
            "max_missing_target",
            missing.value > policy.max_missing_target,
            f"{missing.value:.1%} of the rows have no target",
            share=missing.to_dict(),
        ),
    ]
    if study.task == "classification":
        counts = np.bincount(study.target, minlength=len(study.classes))
        rarest = int(counts.argmin())
        word, count = study.classes[rarest], int(counts[rarest])
        found += [
            _finding(
                "min_rows_per_class",
                count < policy.min_rows_per_class or len(counts) < 2,
                f"the rarest of {len(counts)} classes, '{word}', has {count:,} rows",
                classes=dict(zip(study.classes, counts.tolist(), strict=True)),
            ),
            _finding(
                "warn_minority",
                count / rows < policy.warn_minority,
                f"the rarest class has {count / rows:.1%} of the rows",
                "warns",
                share=count / rows,
            ),
        ]
    empty = {}
    for column in study.columns:
        if column.kind == "number":
            absent = np.isnan(study.table.numbers(column.name)).mean()
        else:
            absent = (study.table.texts(column.name) == "").mean()
        empty[column.name] = float(absent)
    much = {name: share for name, share in empty.items() if share > policy.warn_missing}
    listed = ", ".join(f"{name} {share:.0%}" for name, share in much.items())
    found.append(
        _finding(
            "warn_missing",
            bool(much),
            f"columns that lack many values: {listed or 'none'}",
            "warns",
            missing=empty,
        )
    )
    return found


def _of_copies(copies: Duplicates, policy: Policy) -> list[Finding]:
    found = []
    if copies.conflicting is not None:
        share = copies.conflicting
        found.append(
            _finding(
                "max_conflicting",
                share.low > policy.max_conflicting,
                f"{share.value:.1%} of the rows are there with another target, too",
                share=share.to_dict(),
                repeated=copies.repeated.to_dict(),
            )
        )
    if copies.test_in_training is not None:
        share = copies.test_in_training
        found.append(
            _finding(
                "max_test_in_training",
                share.low > policy.max_test_in_training,
                f"{share.value:.1%} of the test rows are training rows, too",
                share=share.to_dict(),
            )
        )
    return found


def _against_guess(study: Study, predictions: Array) -> tuple[Interval, float, Finding]:
    """The metric, what guessing reaches, and whether the first is better: row by row."""
    if study.task == "classification":
        right = predictions.argmax(axis=1) == study.target
        most = int(np.bincount(study.target).argmax())
        guessed = study.target == most
        value = wilson(int(right.sum()), len(right))
        guess = float(guessed.mean())
        gain = intervals.mean(right.astype(np.float64) - guessed)
        points = [100 * end for end in (gain.value, gain.low, gain.high)]
        text = (
            f"accuracy is {points[0]:+.1f} points better than the class '{study.classes[most]}'"
            f" alone ({points[1]:+.1f} to {points[2]:+.1f})"
        )
    else:
        error = (predictions[:, 0] - study.target) ** 2
        around = (study.target - study.target.mean()) ** 2
        value = intervals.bootstrap(
            lambda rows: float(np.sqrt(error[rows].mean())), len(error), seed=study.seed
        )
        guess = float(np.sqrt(around.mean()))
        gain = intervals.mean((around - error) / around.mean())
        text = f"R² is {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f})"
    bad = not gain.low > 0
    return value, guess, _finding("better_than_guessing", bad, text, gain=gain.to_dict())


def _labels(study: Study, predictions: Array, policy: Policy) -> tuple[Finding, Array]:
    if study.task == "regression":
        noise: LabelNoise = label_noise.regression(study.target, predictions)
        share = noise.estimate
        text = f"{share.value:.2%} of the targets are more than six robust deviations off"
        bad = share.low > policy.max_gross_errors
        return _finding("max_gross_errors", bad, text, share=share.to_dict()), noise.rows
    noise = label_noise.classification(study.target, predictions, policy.label_noise_surest)
    numbers: dict[str, Any] = {"confident_learning": noise.estimate.to_dict()}
    if noise.joint is not None:
        numbers["joint"] = noise.joint.round(5).tolist()
    suspected = f"{len(noise.rows):,} rows are suspicious"
    if noise.surest is None:
        text = f"too few rows to say; {suspected}"
        return _finding("max_label_noise", False, text, **numbers), noise.rows
    surest = noise.surest
    text = (
        f"{surest.value:.1%} ({surest.low:.1%} to {surest.high:.1%}) of the labels are not what"
        f" the model says where it is surest; {suspected}"
    )
    numbers["surest"] = surest.to_dict()
    # Without skill the model is sure of nothing, and its doubt says nothing of the labels.
    bad = surest.low > policy.warn_label_noise and _has_skill(study, predictions)
    level: Level = "blocks" if surest.low > policy.max_label_noise else "warns"
    return _finding("max_label_noise", bad, text, level, **numbers), noise.rows


def _has_skill(study: Study, predictions: Array) -> bool:
    right = predictions.argmax(axis=1) == study.target
    guessed = study.target == np.bincount(study.target).argmax()
    return intervals.mean(right.astype(np.float64) - guessed).low > 0


def _columns(study: Study, policy: Policy, told: Told) -> list[Finding]:
    def part(name: str, ends: tuple[float, float]) -> Callable[[int, int], None]:
        return lambda done, of: told(name, ends[0] + (ends[1] - ends[0]) * done / of)

    classes = study.task == "classification"
    check = "leakage_auc" if classes else "leakage_r_squared"
    limit = policy.leakage_auc if classes else policy.leakage_r_squared
    alone = single_columns(study, limit, part("each column alone", _LEAKAGE))
    leaks = [each for each in alone if each.leaks]
    best = alone[0]
    what = "the area under the curve" if classes else "R²"
    text = (
        "; ".join(
            f"'{each.column}' alone reaches {what} {each.score.value:.4f}"
            f" ({each.score.low:.4f} to {each.score.high:.4f}): is it known before the target is?"
            for each in leaks
        )
        or f"the best column alone, '{best.column}', reaches {what} {best.score.value:.3f}"
    )
    scores = {each.column: each.score.to_dict() for each in alone}
    uses = column_uses(study, part("columns against shuffled ones", _NOISE))
    useless = [use.column for use in uses if use.decision == "noise"]
    share = len(useless) / len(uses)
    level: Level = "blocks" if share > policy.max_noise_features else "warns"
    return [
        _finding(check, bool(leaks), text, columns=scores),
        _finding(
            "max_noise_features",
            share > min(policy.warn_noise_features, policy.max_noise_features),
            f"{len(useless)} of {len(uses)} columns are no better than noise"
            + (f": {', '.join(useless[:8])}" if useless else ""),
            level,
            columns={use.column: dataclasses.asdict(use) for use in uses},
        ),
    ]


def _progress(task: Task, value: Interval, guess: float, goal: float) -> Interval:
    span = goal - guess
    if (span >= 0) if task == "regression" else (span <= 0):
        raise InvalidArgument(
            f"a goal of {goal:g} is no better than guessing, which reaches {guess:.5g}"
        )
    ends = [(end - guess) / span for end in (value.value, value.low, value.high)]
    return Interval(ends[0], min(ends), max(ends))


def _decide(
    findings: Sequence[Finding], progress: Interval | None, policy: Policy
) -> tuple[Verdict, str]:
    blocking = [finding for finding in findings if finding.level == "blocks"]
    if blocking:
        return "fix data", "; ".join(f"{f.check}: {f.says}" for f in blocking)
    if progress is None:
        return "undecided", "the data are fine; with a goal the gate says whether AutoML reaches it"
    if progress.value < policy.fix_data_below:
        return "fix data", (
            f"a baseline goes {progress.value:.0%} of the way to the goal, and below"
            f" {policy.fix_data_below:.0%} the data do not say enough of the target"
        )
    if progress.low >= policy.deploy_from:
        return "deploy AutoML", (
            f"a baseline goes at least {progress.low:.0%} of the way to the goal, and"
            f" {policy.deploy_from:.0%} are enough"
        )
    return "go custom", (
        f"the data are fine, and a baseline goes {progress.value:.0%} of the way to the goal"
    )
