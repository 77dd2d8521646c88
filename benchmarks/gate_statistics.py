"""How often the data-quality gate finds what was planted, and alarms where nothing was.

    python -m crossfade.benchmarks.gate_statistics

Tables of 1,200 rows are drawn (3,600 for a tenth of wrong labels): three columns that matter, two
that do not, a category, missing values; classes from nearly separate to overlapping. Faults are
planted one at a time. The last line of the output is the result as JSON; exit status 1 means that
a bar was missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from crossfade.benchmarks.progress import progress
from crossfade.training.baseline.metrics import Task
from crossfade.training.gate import policy
from crossfade.training.gate.gate import study_data
from crossfade.training.gate.report import Report
from crossfade.training.transforms.table import Table

Rng = np.random.Generator
Array = NDArray[Any]
ROWS: Final = 1200
# How well the true function separates the classes: accuracies of about 0.95, 0.9 and 0.8.
_SLOPES: Final = (8.0, 3.0, 1.2)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A table with its target, ``y``, and a column ``split``."""

    columns: dict[str, list[Any]]

    def table(self) -> Table:
        """The same for the gate."""
        return Table.of(self.columns)


def clean(rng: Rng, rows: int = ROWS, slope: float = 3.0, classes: int = 2) -> Drawn:
    """A table without any fault; ``classes`` 0 is a regression."""
    x = rng.normal(size=(rows, 5))
    group = rng.integers(0, 4, rows)
    effect = np.array([-1.0, 0.0, 0.5, 1.0])[group]
    score = x[:, 0] + 0.7 * x[:, 1] * (x[:, 1] > 0) - 0.5 * x[:, 2] + effect
    columns: dict[str, list[Any]] = {f"x{i}": x[:, i].tolist() for i in range(5)}
    for row in np.flatnonzero(rng.random(rows) < 0.05):
        columns["x2"][row] = None
    columns["group"] = [f"g{g}" for g in group]
    if classes:
        cuts = np.quantile(score, np.arange(1, classes) / classes)
        noisy = score + rng.logistic(size=rows) / slope
        columns["y"] = [f"c{c}" for c in np.digitize(noisy, cuts)]
    else:
        columns["y"] = (score + rng.normal(size=rows) / slope).tolist()
    columns["split"] = ["TEST" if t else "TRAIN" for t in rng.random(rows) < 0.2]
    return Drawn(columns)


def with_wrong_labels(rng: Rng, drawn: Drawn, share: float) -> Drawn:
    """Gives a share of the rows another class."""
    labels = list(drawn.columns["y"])
    classes = sorted(set(labels))
    for row in np.flatnonzero(rng.random(len(labels)) < share):
        labels[row] = str(rng.choice([c for c in classes if c != labels[row]]))
    return Drawn({**drawn.columns, "y": labels})


def with_gross_errors(rng: Rng, drawn: Drawn, share: float) -> Drawn:
    """Multiplies a share of a regression's targets by ten or so."""
    values = np.array(drawn.columns["y"])
    rows = rng.random(len(values)) < share
    values[rows] += rng.choice([-1, 1], rows.sum()) * rng.uniform(10, 20, rows.sum())
    return Drawn({**drawn.columns, "y": values.tolist()})


def with_leak(rng: Rng, drawn: Drawn, right: float = 0.998) -> Drawn:
    """Adds a column that says the target, in other words and but for a few rows."""
    target = drawn.columns["y"]
    if isinstance(target[0], float):
        values = np.array(target)
        leak: list[Any] = (values * 3 + 1 + rng.normal(size=len(values)) * 0.03).tolist()
    else:
        classes = sorted(set(target))
        words = {c: f"w{i}" for i, c in enumerate(classes)}
        leak = [words[c] if rng.random() < right else "w0" for c in target]
    return Drawn({**drawn.columns, "leak": leak})


def with_copies(rng: Rng, drawn: Drawn, share: float = 0.1) -> Drawn:
    """Puts copies of training rows into the test, a share of it."""
    test = [i for i, word in enumerate(drawn.columns["split"]) if word == "TEST"]
    train = [i for i, word in enumerate(drawn.columns["split"]) if word == "TRAIN"]
    columns = {name: list(values) for name, values in drawn.columns.items()}
    for row in rng.choice(test, round(share * len(test)), replace=False):
        source = int(rng.choice(train))
        for name, values in columns.items():
            if name != "split":
                values[row] = values[source]
    return Drawn(columns)


def without_signal(rng: Rng, drawn: Drawn) -> Drawn:
    """Shuffles the target."""
    return Drawn(
        {**drawn.columns, "y": rng.permutation(np.array(drawn.columns["y"], object)).tolist()}
    )


def study(drawn: Drawn, seed: int) -> Report:
    """The gate's report of a table, by the shipped policy."""
    numbers = isinstance(drawn.columns["y"][0], float)
    task: Task = "regression" if numbers else "classification"
    return study_data(drawn.table(), "y", task, policy.load(), split_column="split", seed=seed)


def blocking(report: Report) -> set[str]:
    """The checks that block."""
    return {finding.check for finding in report.findings if finding.level == "blocks"}


Plant = Callable[[Rng], Drawn]
CASES: Final[Mapping[str, tuple[Plant, str]]] = {
    "wrong_labels_10": (
        lambda rng: with_wrong_labels(rng, clean(rng, 3 * ROWS, slope=8.0), 0.1),
        "max_label_noise",
    ),
    "wrong_labels_15_overlapping": (
        lambda rng: with_wrong_labels(rng, clean(rng, slope=3.0), 0.15),
        "max_label_noise",
    ),
    "wrong_labels_15_three_classes": (
        lambda rng: with_wrong_labels(rng, clean(rng, slope=8.0, classes=3), 0.15),
        "max_label_noise",
    ),
    "gross_errors_8": (
        lambda rng: with_gross_errors(rng, clean(rng, classes=0), 0.08),
        "max_gross_errors",
    ),
    "leak": (lambda rng: with_leak(rng, clean(rng, slope=1.2)), "leakage_auc"),
    "leak_of_a_regression": (
        lambda rng: with_leak(rng, clean(rng, classes=0)),
        "leakage_r_squared",
    ),
    "test_in_training_10": (lambda rng: with_copies(rng, clean(rng)), "max_test_in_training"),
    "no_signal": (lambda rng: without_signal(rng, clean(rng)), "better_than_guessing"),
}
CLEAN: Final[Mapping[str, Plant]] = {
    **{f"slope_{slope:g}": functools.partial(clean, slope=slope) for slope in _SLOPES},
    "three_classes": functools.partial(clean, slope=8.0, classes=3),
    "regression": functools.partial(clean, classes=0),
}
# The least and the most that the shares may be.
FOUND_AT_LEAST: Final = 0.8
FALSE_AT_MOST: Final = 0.05


def measure(runs: int = 50, seed: int = 0) -> dict[str, Any]:
    """Draws and studies.

    Args:
        runs: of each case.
        seed: of the random numbers.

    Returns:
        ``found``: of each planted fault the share of runs in which its check blocked;
        ``false_alarms``: of each kind of clean table the share in which any check did; the share
        over all; of the columns that matter those called noise, and of the two that do not
        those that were, over all clean tables.
    """
    found = {}
    for name, (plant, check) in CASES.items():
        hits = 0
        for run in range(runs):
            rng = np.random.default_rng([seed, run])
            hits += check in blocking(study(plant(rng), run))
        found[name] = hits / runs
        progress(f"{name}: found in {found[name]:.0%}")
    false: dict[str, float] = {}
    by_check: Counter[str] = Counter()
    noise: Counter[str] = Counter()
    for name, draw in CLEAN.items():
        alarms = 0
        for run in range(runs):
            report = study(draw(np.random.default_rng([seed, 1, run])), run)
            blocks = blocking(report)
            alarms += bool(blocks)
            by_check.update(blocks)
            uses = next(f for f in report.findings if f.check == "max_noise_features").numbers
            for column, use in uses["columns"].items():
                kind = "useless" if column in ("x3", "x4") else "useful"
                noise[kind] += 1
                noise[f"{kind} called noise"] += use["decision"] == "noise"
        false[name] = alarms / runs
        progress(f"{name}: alarms in {false[name]:.0%}")
    return {
        "runs": runs,
        "rows": ROWS,
        "found": found,
        "false_alarms": false,
        "false_alarm_rate": sum(false.values()) / len(false),
        "false_alarms_by_check": dict(by_check),
        "useful_called_noise": noise["useful called noise"] / noise["useful"],
        "useless_called_noise": noise["useless called noise"] / noise["useless"],
    }


def main() -> int:
    """Runs it; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50, help="of each case (%(default)d)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = measure(options.runs, options.seed)
    sys.stdout.write(json.dumps(result) + "\n")
    missed = [name for name, share in result["found"].items() if share < FOUND_AT_LEAST]
    if result["false_alarm_rate"] > FALSE_AT_MOST:
        missed.append("false_alarm_rate")
    if missed:
        sys.stderr.write(f"bars missed: {', '.join(missed)}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
