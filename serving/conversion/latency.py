"""How long both sides take, in turns, on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import Session, Tensors

_ROUNDS: Final = 30
_BUDGET_S: Final = 3.0
_WARM: Final = 2

Side = tuple[Session, str]


def measure(before: Side, after: Side, inputs: Mapping[int, Tensors]) -> dict[str, Any]:
    """Medians in milliseconds, by the rows of a run.

    The sides run in turns, so that whatever else the machine does meets both.

    Args:
        before: the source, and its signature.
        after: what was made of it.
        inputs: what to run, by its rows.
    """
    found = {}
    for rows, tensors in inputs.items():
        times: tuple[list[float], list[float]] = ([], [])
        until_s = time.monotonic() + _BUDGET_S
        try:
            for turn in range(_WARM + _ROUNDS):
                for side, (session, signature) in enumerate((before, after)):
                    began_ns = time.perf_counter_ns()
                    session.run(tensors, signature, ())
                    if turn >= _WARM:
                        times[side].append((time.perf_counter_ns() - began_ns) / 1e6)
                if turn > _WARM + 2 and time.monotonic() > until_s:
                    break
        except CrossfadeError:
            continue  # a size that a side does not take; the proof has said so
        found[str(rows)] = {
            "before": round(statistics.median(times[0]), 3),
            "after": round(statistics.median(times[1]), 3),
            "runs": len(times[0]),
        }
    return found
