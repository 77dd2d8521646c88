"""``batching: auto``: chooses size and delay from the latency curve of the model itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

# Stacking must save this share of the time a row costs; on a CPU it often saves nothing.
_MIN_SAVING: Final = 0.2
# Between two runs an instance idles about so long, until the next thread is awake.
_BETWEEN_RUNS_S: Final = 0.0003
# A size is large enough once its cost a row is within this of the best.
_NEAR_BEST: Final = 1.1
# A change of size that takes so many times as long as the run itself is worth no stacking.
_SLOW_CHANGE: Final = 10
# A run shorter than this is over before a wait for others could pay.
_WORTH_WAITING_S: Final = 0.001


def measure(
    run: Callable[[int], None], max_rows: int, budget_s: float = 0.3
) -> Mapping[int, float]:
    """Times ``run(rows)`` for 1, 2, 4 … rows and returns seconds by rows.

    Stops early when more rows save nothing, when ``budget_s`` is spent, or after one row if a run
    takes far longer whenever the size is another than before. A size's first run is
    not counted: on a GPU it chooses kernels and takes memory. That of one row was the warm-up.
    """
    curve: dict[int, float] = {}
    spent_s = 0.0
    rows = 1
    while rows <= max_rows:
        if rows > 1:
            run(rows)
        began_s = time.perf_counter()
        curve[rows] = _timed(run, rows, budget_s)
        if rows == 2 and not _is_stalled(curve, rows):
            if _is_changing_slow(run, curve):
                return {1: curve[1]}
            # A disturbed first measurement makes stacking look cheap, and larger runs take memory.
            curve[1] = min(curve[1], _timed(run, 1, budget_s))
        spent_s += time.perf_counter() - began_s
        if _is_stalled(curve, rows) or spent_s + 6 * curve[rows] > budget_s:
            break
        rows *= 2
    return curve


def _timed(run: Callable[[int], None], rows: int, budget_s: float) -> float:
    """Seconds of the quickest of three runs, or of fewer if they are long."""
    times: list[float] = []
    for _ in range(3):
        start_s = time.perf_counter()
        run(rows)
        times.append(time.perf_counter() - start_s)
        if sum(times) > budget_s / 4:
            break
    return min(times)


def _is_changing_slow(run: Callable[[int], None], curve: Mapping[int, float]) -> bool:
    """Whether a run of another size than the last one's takes far longer, each time anew.

    A convolution of ONNX Runtime's CUDA provider keeps its plan for one shape only: stacking as
    many rows as there happen to be would make most runs build theirs.
    """
    for rows in (1, 2, 1):
        start_s = time.perf_counter()
        run(rows)
        if time.perf_counter() - start_s < _SLOW_CHANGE * curve[rows]:
            return False
    return True


def _is_stalled(curve: Mapping[int, float], rows: int) -> bool:
    return rows >= 2 and curve[rows] / rows > (1 - _MIN_SAVING) * curve[1]


class Choice(NamedTuple):
    """See the attributes of ``Scheduled``."""

    max_rows: int
    max_delay_s: float
    crowd_rows: int


def choose(curve: Mapping[int, float], slo_s: float | None = None) -> Choice:
    """Chooses how requests are stacked.

    The size is the smallest whose cost a row is near the best one, among those whose run takes at
    most half of the promised latency; it is 1 where stacking does not pay. There is a delay only
    if a latency was promised, since only then is it known what a request can afford: a quarter
    of what is left of the promise, and never longer than half a full run. Where stacking does not
    pay, pairs are made in a crowd if they cost no more than two runs and what is between these.

    Args:
        curve: seconds of one run by its number of rows; holds 1.
        slo_s: the promised latency in seconds, if any.
    """
    allowed = {n: t for n, t in curve.items() if n == 1 or slo_s is None or t <= slo_s / 2}
    best = min(t / n for n, t in allowed.items())
    rows = min(n for n, t in allowed.items() if t / n <= _NEAR_BEST * best)
    if allowed[rows] / rows > (1 - _MIN_SAVING) * curve[1]:
        pays = allowed.get(2, math.inf) <= 2 * curve[1] + _BETWEEN_RUNS_S
        return Choice(1, 0.0, 2 if pays and curve[1] >= _WORTH_WAITING_S else 1)
    if slo_s is None or curve[1] < _WORTH_WAITING_S:
        return Choice(rows, 0.0, rows)
    slack_s = max(0.0, slo_s - 2 * allowed[rows])
    return Choice(rows, min(allowed[rows] / 2, slack_s / 4), rows)
