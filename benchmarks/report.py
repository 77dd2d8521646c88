"""From single measurements to medians, ratios and a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One window of one server.

    Attributes:
        server: By name.
        model: By name.
        concurrency: Requests in flight.
        repetition: Counted from 0.
        requests: Complete replies inside the window.
        rps: Complete replies per second.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
        cpu_us: CPU time of the server's whole process tree per request.
        client_cpu_us: CPU time of the load generator per request.
        stolen_cores: Cores that the hypervisor gave to other guests, on average.
        foreign_cores: Cores used by anything but server and load generator, on average.
        checked: Answers compared with bare ONNX Runtime, before, in the warm-up, and after.
        counted: Replies of the whole load run whose size was verified.
    """

    server: str
    model: str
    concurrency: int
    repetition: int
    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    client_cpu_us: float
    stolen_cores: float
    foreign_cores: float
    checked: int
    counted: int

    @property
    def disturbed_cores(self) -> float:
        """Cores that were kept from server and load generator, on average."""
        return self.stolen_cores + self.foreign_cores


@dataclass(frozen=True)
class Start:
    """One start of one server.

    Attributes:
        server: By name.
        repetition: Counted from 0.
        ready_s: From starting the process until server and all models answer that they are ready.
        processes: In the server's tree.
        pss_idle_mb: Memory of the tree (PSS, 10^6 bytes), models loaded, before the first request.
        pss_after_mb: The same after all load.
        idle_cpu_percent: CPU time of the idle server, in percent of one core.
    """

    server: str
    repetition: int
    ready_s: float
    processes: int
    pss_idle_mb: float
    pss_after_mb: float
    idle_cpu_percent: float


@dataclass(frozen=True)
class Row:
    """Medians over the repetitions of one server, model and concurrency.

    Attributes:
        server: By name.
        model: By name.
        concurrency: Requests in flight.
        repetitions: How many windows the medians are of.
        rps: Requests per second.
        rps_min: Of the worst repetition.
        rps_max: Of the best repetition.
        p50_ms: Median latency.
        p99_ms: 99th percentile of the latency.
        cpu_us: Server CPU per request.
        client_cpu_us: Load generator CPU per request.
        stolen_cores: The most of any repetition.
        foreign_cores: The most of any repetition.
    """

    server: str
    model: str
    concurrency: int
    repetitions: int
    rps: float
    rps_min: float
    rps_max: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    client_cpu_us: float
    stolen_cores: float
    foreign_cores: float


@dataclass(frozen=True)
class StartRow:
    """Medians over one server's starts; the fields are those of `Start`."""

    server: str
    ready_s: float
    processes: int
    pss_idle_mb: float
    pss_after_mb: float
    idle_cpu_percent: float


Cell = tuple[str, str, int]  # server, model, concurrency


def summarise(measurements: Iterable[Measurement]) -> list[Row]:
    """Medians per server, model and concurrency, in the order of their first appearance."""
    cells: dict[Cell, list[Measurement]] = {}
    for each in measurements:
        cells.setdefault((each.server, each.model, each.concurrency), []).append(each)
    return [
        Row(
            server=server,
            model=model,
            concurrency=concurrency,
            repetitions=len(group),
            rps=statistics.median(each.rps for each in group),
            rps_min=min(each.rps for each in group),
            rps_max=max(each.rps for each in group),
            p50_ms=statistics.median(each.p50_ms for each in group),
            p99_ms=statistics.median(each.p99_ms for each in group),
            cpu_us=statistics.median(each.cpu_us for each in group),
            client_cpu_us=statistics.median(each.client_cpu_us for each in group),
            stolen_cores=max(each.stolen_cores for each in group),
            foreign_cores=max(each.foreign_cores for each in group),
        )
        for (server, model, concurrency), group in cells.items()
    ]


def summarise_starts(starts: Iterable[Start]) -> list[StartRow]:
    """Medians per server, in the order of their first appearance."""
    groups: dict[str, list[Start]] = {}
    for each in starts:
        groups.setdefault(each.server, []).append(each)
    return [
        StartRow(
            server=server,
            ready_s=statistics.median(each.ready_s for each in group),
            processes=max(each.processes for each in group),
            pss_idle_mb=statistics.median(each.pss_idle_mb for each in group),
            pss_after_mb=statistics.median(each.pss_after_mb for each in group),
            idle_cpu_percent=statistics.median(each.idle_cpu_percent for each in group),
        )
        for server, group in groups.items()
    ]


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """A quotient, or None where either side was not measured."""
    if numerator is None or denominator is None:
        return None
    if not math.isfinite(numerator) or not math.isfinite(denominator) or denominator == 0:
        return None
    return round(numerator / denominator, 3)


def headline(rows: Sequence[Row], starts: Sequence[StartRow]) -> dict[str, float | None]:
    """Crossfade against its peers and its limits; None where a side was not measured.

    ``*_vs_<peer>`` are ratios of requests per second (more is better), ``*_cpu_vs_*`` of CPU time
    per request (less is better), at the same concurrency unless the name says otherwise.
    """
    by_cell = {(row.server, row.model, row.concurrency): row for row in rows}

    def rps(server: str, model: str, concurrency: int) -> float | None:
        row = by_cell.get((server, model, concurrency))
        return row.rps if row else None

    def cpu(server: str, model: str, concurrency: int) -> float | None:
        row = by_cell.get((server, model, concurrency))
        return row.cpu_us if row else None

    def rps_ratio(peer: str, model: str, concurrency: int) -> float | None:
        return ratio(rps("crossfade", model, concurrency), rps(peer, model, concurrency))

    def cpu_ratio(peer: str, model: str, concurrency: int) -> float | None:
        return ratio(cpu("crossfade", model, concurrency), cpu(peer, model, concurrency))

    def p99(server: str, model: str, concurrency: int) -> float | None:
        row = by_cell.get((server, model, concurrency))
        return row.p99_ms if row else None

    start = next((each for each in starts if each.server == "crossfade"), None)
    return {
        "addsub_c1_vs_triton": rps_ratio("triton", "addsub", 1),
        "addsub_c8_vs_triton": rps_ratio("triton", "addsub", 8),
        "addsub_c32_vs_triton": rps_ratio("triton", "addsub", 32),
        "addsub_c32_p99_vs_triton": ratio(
            p99("crossfade", "addsub", 32), p99("triton", "addsub", 32)
        ),
        "addsub_c32_cpu_us": cpu("crossfade", "addsub", 32),
        "mlp_c32_vs_triton": rps_ratio("triton", "mlp", 32),
        "addsub_c32_vs_kserve": rps_ratio("kserve", "addsub", 32),
        "addsub_c32_vs_mlserver": rps_ratio("mlserver", "addsub", 32),
        "addsub_cpu_vs_floor": cpu_ratio("floor", "addsub", 32),
        "addsub_cpu_vs_floor_c1": cpu_ratio("floor", "addsub", 1),
        "addsub_cpu_vs_floor_c8": cpu_ratio("floor", "addsub", 8),
        "cnn_c8_vs_triton": rps_ratio("triton", "cnn", 8),
        "cnn_cpu_vs_bare": cpu_ratio("bare", "cnn", 8),
        "cnn_cpu_vs_bare_c1": cpu_ratio("bare", "cnn", 1),
        "cnn_c8_cpu_vs_bare_c1": ratio(cpu("crossfade", "cnn", 8), cpu("bare", "cnn", 1)),
        "pss_idle_mb": round(start.pss_idle_mb, 1) if start else None,
        "ready_s": round(start.ready_s, 3) if start else None,
    }


def format_rows(rows: Sequence[Row]) -> str:
    """A table of the rows, grouped by model and concurrency so that servers stand together."""
    ordered = sorted(rows, key=lambda row: (row.model, row.concurrency))
    return _table(
        (
            *("model", "c", "server", "rps", "(min-max)", "p50 ms", "p99 ms", "CPU us/req"),
            *("client us/req", "stolen", "foreign"),
        ),
        [
            (
                row.model,
                str(row.concurrency),
                row.server,
                f"{row.rps:,.0f}" if row.rps >= 100 else f"{row.rps:.1f}",
                f"({row.rps_min:,.0f}-{row.rps_max:,.0f})",
                f"{row.p50_ms:.2f}",
                f"{row.p99_ms:.2f}",
                f"{row.cpu_us:,.0f}" if row.cpu_us >= 10 else f"{row.cpu_us:.1f}",
                f"{row.client_cpu_us:,.0f}",
                f"{row.stolen_cores:.2f}",
                f"{row.foreign_cores:.2f}",
            )
            for row in ordered
        ],
    )


def format_starts(starts: Sequence[StartRow]) -> str:
    """A table of what each server needs before the first request."""
    return _table(
        ("server", "ready s", "processes", "PSS idle MB", "PSS after MB", "idle CPU %"),
        [
            (
                each.server,
                f"{each.ready_s:.2f}",
                str(each.processes),
                f"{each.pss_idle_mb:.0f}",
                f"{each.pss_after_mb:.0f}",
                f"{each.idle_cpu_percent:.1f}",
            )
            for each in starts
        ],
    )


def format_mapping(values: Mapping[str, object]) -> str:
    """One name and value per line."""
    return "\n".join(
        f"  {name}: {'not measured' if value is None else value}" for name, value in values.items()
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in (header, *rows)
    )


def jsonable(value: object) -> object:
    """The value with six digits a number, and None for what JSON cannot hold (NaN, infinity)."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    return value
