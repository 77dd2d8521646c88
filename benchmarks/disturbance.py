"""Windows in which the machine did something else are measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.report import Measurement, Row

DISTURBED_CORES = 0.15


def least_disturbed(measure: Callable[[], Measurement], attempts: int) -> Measurement:
    """Measure until a window is undisturbed, and return it or the least disturbed one.

    Only what others took decides, never the result, so that no server gains from the choice.

    Args:
        measure: Measures one window.
        attempts: How often at most.
    """
    tries: list[Measurement] = []
    while len(tries) < attempts:
        tries.append(measure())
        latest = tries[-1]
        progress(
            f"{latest.server} {latest.model} c{latest.concurrency}: "
            f"{latest.rps:,.0f} rps, p50 {latest.p50_ms:.2f} ms, p99 {latest.p99_ms:.2f} ms, "
            f"{latest.cpu_us:,.0f} us CPU a request"
        )
        if latest.disturbed_cores <= DISTURBED_CORES:
            break
        progress(f"  disturbed: {latest.disturbed_cores:.2f} cores went elsewhere")
    return min(tries, key=lambda each: each.disturbed_cores)


def disturbed(rows: Iterable[Row]) -> list[str]:
    """Name the rows whose worst repetition was disturbed in spite of all attempts."""
    return [
        f"{row.server} {row.model} c{row.concurrency}"
        for row in rows
        if max(row.stolen_cores, row.foreign_cores) > DISTURBED_CORES
    ]
