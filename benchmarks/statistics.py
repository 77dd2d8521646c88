"""Every claim that rests on statistics, proven by simulation and on real data.

Run it with ``make bench-statistics``: some minutes, one core, nothing is timed and nothing random
but by fixed seeds. Progress goes to standard error; the last line of standard output is one JSON
object. Exit status 1 means that a bar was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from crossfade.benchmarks import ensemble_statistics, fading_statistics
from crossfade.benchmarks.report import format_mapping, jsonable

# Each part gives its own keys.
PARTS: Final[tuple[Callable[[], Mapping[str, Any]], ...]] = (
    ensemble_statistics.measure,
    fading_statistics.measure,
)

# The least or most that a key may be.
AT_MOST: Final = {
    "worst_loss_vs_best_member": 0.01,
    "mean_loss_vs_uniform": 0.0,
    "useless_member_weight": 0.02,
    "cascade_accuracy_drop": 0.005,
    "aa_false_alarm_rate": 0.05,
}
AT_LEAST: Final = {
    "problems": 10,
    "cascade_cost_cut": 0.5,
    "aa_runs": 2_000,
    "power_5pt": 0.8,
}


def missed(found: Mapping[str, Any]) -> list[str]:
    """The bars that are not reached, each with what was found."""
    over = [
        f"{key} is {found[key]:.4g}, at most {bar}"
        for key, bar in AT_MOST.items()
        if found[key] > bar
    ]
    under = [
        f"{key} is {found[key]:.4g}, at least {bar}"
        for key, bar in AT_LEAST.items()
        if found[key] < bar
    ]
    return over + under


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and reports; returns the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
    found: dict[str, Any] = {}
    for part in PARTS:
        found |= part()
    for name, each in found.pop("by_problem").items():
        print(name)
        print(format_mapping(each))
    failures = missed(found)
    print("\n".join(failures) or "every bar is reached")
    print(json.dumps(jsonable(found)))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
