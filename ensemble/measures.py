"""What an ensemble counts, as plain values; the server shows them with its own metrics."""

from __future__ import annotations

import bisect
import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """One metric, in Prometheus' conventions.

    Attributes:
        name: without the prefix ``crossfade_``, and a counter's without ``_total``.
        labels: names.
        values: by the labels' values, a tuple of texts. A number, or a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    values: Mapping[Any, float] | Mapping[Any, Histogram]


class Measuring(Protocol):
    """A Model that counts something of its own."""

    def measures(self) -> Iterable[Measure]:
        """What was counted until now; safe from any thread."""
        ...


class Tally:
    """Counters by labels' values. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, ...]] = Counter()

    def add(self, *labels: str, count: int = 1) -> None:
        """Counts ``count`` more."""
        with self._lock:
            self._counts[labels] += count

    def values(self) -> dict[tuple[str, ...], float]:
        """All counts."""
        with self._lock:
            return dict(self._counts)


class Histogram:
    """How often a value was at most each bound. Thread-safe."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        place = bisect.bisect_left(self.bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def read(self) -> tuple[list[int], float]:
        """How often each place was hit, the last one above all bounds; and the sum."""
        with self._lock:
            return list(self._counts), self._sum
