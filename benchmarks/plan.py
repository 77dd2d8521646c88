"""What a benchmark measures of each server, and what one life of a server gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossfade.benchmarks.report import Measurement, Start


@dataclass(frozen=True)
class Plan:
    """What to measure of each server.

    Attributes:
        models: By name.
        concurrencies: Requests in flight.
        warmup_s: Load before each window.
        window_s: Length of each window.
        idle_s: How long to watch the idle server.
        attempts: How often a window is measured at most, while it is disturbed.
    """

    models: Sequence[str]
    concurrencies: Sequence[int]
    warmup_s: float
    window_s: float
    idle_s: float
    attempts: int


@dataclass(frozen=True)
class Life:
    """What one life of a server gave, or several.

    Attributes:
        starts: Of its process; empty for bare ONNX Runtime and for a server that did not start.
        measurements: Of the windows that went well.
        failures: What went wrong, a sentence each.
    """

    starts: Sequence[Start]
    measurements: Sequence[Measurement]
    failures: Sequence[str]
