"""``crossfade train baseline``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, NotFound, escape
from crossfade.serving.processing import table_schema
from crossfade.serving.repository.layout import check_name
from crossfade.serving.repository.lineage import read_card
from crossfade.training.baseline.jobs import Progress
from crossfade.training.baseline.tabular import (
    INSTANCE,
    OBJECTIVES,
    LocalTabularModel,
    LocalTabularTrainingJob,
    infer_task,
)
from crossfade.training.core import command_line
from crossfade.training.core.publishing import publish
from crossfade.training.transforms import plan
from crossfade.training.transforms.plan import PlannedColumn
from crossfade.training.transforms.table import Table, read_csv

_EPILOG = """\
examples:
  crossfade train baseline --data housing.csv --target price --name prices --repository models/
  crossfade train baseline --data people.csv --target survived --column class=categorical \\
      --leave-out id --budget 10m --name people --repository models/
  crossfade train baseline --data digits/ --size 16 --color gray --name digits --repository models/

Without --target the data are pictures: a folder for each label, or a CSV file [ML_USE,]path,label.
The baseline is served with the inputs and outputs of an AutoML export of the same kind.
"""
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600}
_WIDTH: Final = 24
_LINE_EVERY_S: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.description = (
        "Train what AutoML would have made of a table or of pictures, on this machine, and write it"
        " as ONNX: the next version of the model."
    )
    parser.epilog = _EPILOG
    option = parser.add_argument
    option("--data", type=Path, required=True, metavar="PATH", help="a CSV file, or pictures")
    option("--name", required=True, help="what clients will call the model")
    option("--repository", required=True, type=Path, metavar="DIR", help="where it is written")
    option("--target", metavar="COLUMN", help="the column to predict")
    option("--task", choices=tuple(OBJECTIVES), help="what the target is (told by its values)")
    option(
        "--objective",
        choices=[name for each in OBJECTIVES.values() for name in each],
        help="what is made small or large (minimize-rmse, minimize-log-loss)",
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
    option(
        "--export",
        type=Path,
        metavar="DIR",
        help="an AutoML Tabular export, or its imported version: its columns and categories",
    )
    option("--split-column", metavar="COLUMN", help="says TRAIN, VALIDATE or TEST in each row")
    option("--test-share", type=float, default=0.1, metavar="X", help="of the rows (%(default)g)")
    option("--budget", type=_seconds, default=120.0, metavar="TIME", help="30s, 10m, 1h (2m)")
    option("--threads", type=int, default=1, metavar="N", help="for the trees (%(default)d)")
    option("--seed", type=int, default=0, metavar="N", help="of all that is drawn (%(default)d)")
    option("--size", type=int, default=64, metavar="N", help="of pictures, in pixels (%(default)d)")
    option("--color", choices=("rgb", "gray"), default="rgb", help="of pictures (%(default)s)")


def run(options: argparse.Namespace) -> int:
    """Trains and publishes; returns the exit code."""
    check_name(options.name)
    if not 0 < options.test_share < 0.9:
        raise InvalidArgument("--test-share is above 0 and below 0.9")
    model = _pictures(options) if options.target is None else _table(options)
    made = publish(model.export, options.repository, options.name, model.model_yaml())
    sys.stdout.write(command_line.wrote(options, made, read_card(made)))
    return 0


def _table(options: argparse.Namespace) -> LocalTabularModel:
    table = read_csv(options.data).without(*options.leave_out)
    task = options.task or infer_task(table, options.target)
    aside = [options.target, *filter(None, [options.split_column])]
    features = table.without(*aside)
    if options.export is not None:
        if options.column:
            raise InvalidArgument("give one of --column, --export: both say what columns are")
        columns: Sequence[PlannedColumn] | None = _of_export(options.export, features)
    else:
        columns = of_options(options.column, features)
    job = LocalTabularTrainingJob(
        options.name,
        task,
        options.objective,
        columns=columns,
        seed=options.seed,
        threads=options.threads,
        report=bar(options.budget),
    )
    return job.run(
        table,
        options.target,
        training_fraction_split=0.9 - options.test_share,
        validation_fraction_split=0.1,
        test_fraction_split=options.test_share,
        predefined_split_column_name=options.split_column,
        budget_milli_node_hours=_milli_node_hours(options.budget),
    )


def _pictures(options: argparse.Namespace) -> Any:
    from crossfade.training.baseline.images import LocalImageTrainingJob

    job = LocalImageTrainingJob(
        options.name,
        size=options.size,
        color=options.color,
        seed=options.seed,
        report=bar(options.budget),
    )
    try:
        return job.run(
            options.data,
            training_fraction_split=0.9 - options.test_share,
            validation_fraction_split=0.1,
            test_fraction_split=options.test_share,
            budget_milli_node_hours=_milli_node_hours(options.budget),
        )
    except (InvalidArgument, NotFound) as error:
        if not options.data.is_file():
            raise
        hint = "without --target the data are pictures; a table needs --target"
        raise type(error)(f"{error.message} ({hint})") from error


def _of_export(folder: Path, table: Table) -> list[PlannedColumn]:
    """What an export says of the columns; those that the table has not are an error."""
    found = sorted(folder.rglob(INSTANCE))
    if not found:
        raise NotFound(f"--export: there is no {INSTANCE} in '{escape(folder.name)}'")
    declared = {
        column.name: f"array of {column.type}" if column.array else column.type
        for column in table_schema.columns(found[0])
    }
    return plan.of_export(folder, declared, table)


def of_options(said: Sequence[str], features: Table) -> Sequence[PlannedColumn] | None:
    """Columns of ``--column`` options, the others as their values are; ``None`` without any.

    Raises:
        InvalidArgument: an option is no NAME=KIND, or not of this table.
    """
    if not said:
        return None
    found: dict[str, str] = dict.fromkeys(features.columns, "auto")
    for each in said:
        name, equals, kind = each.rpartition("=")
        if not equals:
            raise InvalidArgument(f"--column is NAME=KIND, not '{escape(each)}'")
        if name not in found:
            raise InvalidArgument(f"--column: the table has no column '{escape(name)}'")
        found[name] = kind
    return plan.of_kinds(found, features)


def _milli_node_hours(budget_s: float) -> int:
    return max(1, round(budget_s / 3.6))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)", text)
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"not a time such as 30s, 10m or 1h: {text!r}")
    return float(match[1]) * _UNITS_S[match[2] or "s"]


def bar(budget_s: float | None = None) -> Callable[[Progress], None]:
    """Draws how far a job is: a bar on a terminal, elsewhere a line now and then."""
    last_s = [-_LINE_EVERY_S]
    of = "" if budget_s is None else f" of {budget_s:g} s"

    def draw(progress: Progress) -> None:
        best = "" if progress.best is None else f", best {progress.best:.5g}"
        if sys.stderr.isatty():
            filled = "#" * round(_WIDTH * progress.done)
            end = "\n" if progress.done >= 1 else ""
            text = f"[{filled:{_WIDTH}}]{of}  {progress.doing}{best}"
            sys.stderr.write(f"\r{text}\x1b[K{end}")
        elif progress.done >= 1 or time.monotonic() - last_s[0] >= _LINE_EVERY_S:
            last_s[0] = time.monotonic()
            sys.stderr.write(f"{progress.done:4.0%}  {progress.doing}{best}\n")
        sys.stderr.flush()

    return draw
