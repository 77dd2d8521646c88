"""What the baseline reaches on three data sets, on rows that it has not seen.

    python -m crossfade.benchmarks.baseline --data ../shared/fixtures/tabular

California housing and Titanic are read from ``housing.csv`` and ``titanic.csv`` in the folder; the
digits are scikit-learn's, 1,797 pictures of 8 x 8, written as files first. Each split is drawn anew
by its seed. The last line of the output is the result as JSON; exit status 1 means that a bar was
missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.benchmarks.progress import progress
from crossfade.training.baseline.images import LocalImageTrainingJob
from crossfade.training.baseline.metrics import Evaluation
from crossfade.training.baseline.tabular import LocalTabularTrainingJob

# Housing: the root mean squared error of the mean over the seeds, in dollars, at most.
HOUSING_AT_MOST: Final = 48_000.0
TITANIC_ABOVE_MAJORITY: Final = 0.1
DIGITS_AT_LEAST: Final = 0.98
_HOUR_S: Final = 3.6


def housing(data: Path, seed: int, budget_s: float) -> Evaluation:
    """A fifth of the rows is the test."""
    job = LocalTabularTrainingJob("housing", "regression", seed=seed)
    model = job.run(
        data / "housing.csv",
        "median_house_value",
        training_fraction_split=0.7,
        validation_fraction_split=0.1,
        test_fraction_split=0.2,
        budget_milli_node_hours=round(budget_s / _HOUR_S),
    )
    return model.evaluate()


def titanic(data: Path, seed: int, budget_s: float) -> Evaluation:
    """A fifth of the rows is the test."""
    job = LocalTabularTrainingJob("titanic", "classification", seed=seed)
    model = job.run(
        data / "titanic.csv",
        "Survived",
        training_fraction_split=0.7,
        validation_fraction_split=0.1,
        test_fraction_split=0.2,
        budget_milli_node_hours=round(budget_s / _HOUR_S),
    )
    return model.evaluate()


def digits(_: Path, seed: int, budget_s: float) -> Evaluation:
    """A tenth of each digit's pictures is the test."""
    with tempfile.TemporaryDirectory(prefix="crossfade-") as scratch:
        write_digits(Path(scratch))
        job = LocalImageTrainingJob("digits", size=16, color="gray", seed=seed)
        return job.run(scratch, budget_milli_node_hours=round(budget_s / _HOUR_S)).evaluate()


def write_digits(folder: Path) -> None:
    """Scikit-learn's digits as PNG files, a folder for each label."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        place = folder / str(label)
        place.mkdir(exist_ok=True)
        picture = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
        picture.save(place / f"{number:04}.png")


SETS: Final[Mapping[str, tuple[Callable[[Path, int, float], Evaluation], str]]] = {
    "housing": (housing, "rootMeanSquaredError"),
    "titanic": (titanic, "accuracy"),
    "digits": (digits, "accuracy"),
}


def measure(data: Path, seeds: Sequence[int], budgets: Mapping[str, float]) -> dict[str, Any]:
    """Trains on each set with each seed, within a budget of seconds each."""
    found: dict[str, Any] = {}
    for name, (run, metric) in SETS.items():
        values = []
        for seed in seeds:
            started = time.monotonic()
            measured = run(data, seed, budgets[name])
            values.append(measured.metrics[metric].value)
            progress(f"{name}, seed {seed}: {metric} {values[-1]:.5g}")
            found.setdefault(f"{name}_seconds", []).append(round(time.monotonic() - started))
            majority = measured.metrics.get("majorityAccuracy")
            if majority is not None:
                found.setdefault(f"{name}_majority", []).append(majority.value)
        found[f"{name}_{metric}"] = values
        found[f"{name}_mean"] = float(np.mean(values))
    return found


def missed(found: Mapping[str, Any]) -> list[str]:
    """The bars that are not reached."""
    above = found["titanic_mean"] - float(np.mean(found["titanic_majority"]))
    return [
        name
        for name, reached in (
            ("housing", found["housing_mean"] <= HOUSING_AT_MOST),
            ("titanic", above >= TITANIC_ABOVE_MAJORITY),
            ("digits", found["digits_mean"] >= DIGITS_AT_LEAST),
        )
        if not reached
    ]


def main() -> int:
    """Runs it; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    option = parser.add_argument
    option("--data", type=Path, default=Path("../shared/fixtures/tabular"), metavar="DIR")
    option("--seeds", type=int, default=3, metavar="N", help="splits of each set (%(default)d)")
    option("--budget", type=float, default=120.0, metavar="S", help="of housing (%(default)g s)")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"there is no folder {options.data}: --data has housing.csv and titanic.csv")
    budgets = {"housing": options.budget, "titanic": options.budget / 4, "digits": 60.0}
    result = measure(options.data, range(options.seeds), budgets)
    sys.stdout.write(json.dumps(result) + "\n")
    bars = missed(result)
    if bars:
        sys.stderr.write(f"bars missed: {', '.join(bars)}\n")
    return 1 if bars else 0


if __name__ == "__main__":
    sys.exit(main())
