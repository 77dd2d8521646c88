"""``crossfade train gate``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from crossfade.training.baseline.command import bar, of_options
from crossfade.training.baseline.jobs import Progress
from crossfade.training.baseline.metrics import Task
from crossfade.training.baseline.tabular import OBJECTIVES, infer_task
from crossfade.training.gate import policy
from crossfade.training.gate.gate import study_data
from crossfade.training.transforms import plan
from crossfade.training.transforms.table import read_csv

_EPILOG = """\
examples:
  crossfade train gate --data titanic.csv --target Survived --goal 0.85
  crossfade train gate --data housing.csv --target price --goal 48000 --policy ours.yaml

verdicts:
  fix data       a check blocks, or a baseline learns too little
  go custom      the data are fine, and a baseline is not good enough
  deploy AutoML  a baseline is good enough
  undecided      the data are fine, and no goal was given
"""
_FIX = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.description = (
        "Study a table before anything is trained: wrong labels, leaks, copies, noise, and how far"
        " a baseline gets. The exit code is 3 where the data have to be fixed."
    )
    parser.epilog = _EPILOG
    option = parser.add_argument
    option("--data", type=Path, required=True, metavar="FILE", help="a CSV file")
    option("--target", required=True, metavar="COLUMN", help="the column to predict")
    option("--task", choices=tuple(OBJECTIVES), help="what the target is (told by its values)")
    option(
        "--goal",
        type=float,
        metavar="X",
        help="the accuracy that is wanted; of a regression, the root mean squared error",
    )
    option(
        "--column",
        action="append",
        default=[],
        metavar="NAME=KIND",
        help=f"{', '.join(plan.TRANSFORMATIONS)}; others are told by their values; may be repeated",
    )
    option(
        "--leave-out",
        action="append",
        default=[],
        metavar="COLUMN",
        help="use it for nothing; may be repeated",
    )
    option("--split-column", metavar="COLUMN", help="says TEST in rows that are tested on")
    option("--policy", type=Path, metavar="FILE", help="YAML: thresholds that differ from ours")
    option("--json", type=Path, metavar="FILE", help="write the report there, too")
    option("--seed", type=int, default=0, metavar="N", help="of all that is drawn (%(default)d)")


def run(options: argparse.Namespace) -> int:
    """Studies and reports; returns the exit code."""
    rules = policy.load(options.policy)
    table = read_csv(options.data).without(*options.leave_out)
    task: Task = options.task or infer_task(table, options.target)
    features = table.without(options.target, *filter(None, [options.split_column]))
    draw = bar()
    report = study_data(
        table,
        options.target,
        task,
        rules,
        goal=options.goal,
        columns=of_options(options.column, features),
        split_column=options.split_column,
        seed=options.seed,
        told=lambda doing, done: draw(Progress(doing, done)),
    )
    sys.stdout.write("\n".join(report.lines()) + "\n")
    if options.json is not None:
        _write(options.json, json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return _FIX if report.verdict == "fix data" else 0


def _write(path: Path, text: str) -> None:
    """All of it, or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
