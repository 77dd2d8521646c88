"""What was observed during one step of a fade: counts, whatever the order and the replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from crossfade.ensemble.sequential import BINS, Latencies, Mean
from crossfade.runtimes.core.errors import InvalidArgument

PRIMARY: Final = 0
CANDIDATE: Final = 1
_MEANS: Final = (
    *("quality_pairs", "quality_alone", "agreement", "errors_pairs", "errors_alone", "alone"),
)


class StepEvidence:
    """Everything that a step is judged by. Not thread-safe: one writer, or a lock around it.

    Attributes:
        quality_pairs: of labelled pairs, 1 where only the candidate was right, -1 where only the
            primary was, else 0.
        quality_alone: of labelled requests that one member answered alone, -1 where that was the
            candidate and wrong, 1 where it was the primary and wrong, else 0.
        agreement: of pairs that both answered, 1 where the answers were the same, else 0.
        errors_pairs: of pairs, 1 where only the candidate failed, -1 where only the primary did.
        errors_alone: of requests that one member was asked alone, 1 where the candidate failed,
            -1 where the primary did, else 0.
        alone: how many requests the primary and the candidate were asked alone.
        latency: in milliseconds, of what the primary and the candidate answered.
    """

    def __init__(self) -> None:
        self.quality_pairs = Mean((-1, 0, 1))
        self.quality_alone = Mean((-1, 0, 1))
        self.agreement = Mean((0, 1))
        self.errors_pairs = Mean((-1, 0, 1))
        self.errors_alone = Mean((-1, 0, 1))
        self.alone = Mean((0, 1))
        self.latency = (Latencies(), Latencies())

    def observe_pairs(self, agreed: ArrayLike, failed: ArrayLike, latency_ms: ArrayLike) -> None:
        """Adds n requests that both members were asked.

        Args:
            agreed: shape (n,), whether the answers were the same; ignored where one failed.
            failed: shape (n, 2), whether the primary and the candidate failed.
            latency_ms: shape (n, 2); ignored where it failed.

        Raises:
            InvalidArgument: a latency is negative or no number; nothing was added.
        """
        failures = np.asarray(failed, np.bool_).reshape(-1, 2)
        times = np.asarray(latency_ms, np.float64).reshape(-1, 2)
        same = np.asarray(agreed, np.bool_).reshape(-1)
        answered = [Latencies(), Latencies()]
        for member in (PRIMARY, CANDIDATE):
            answered[member].update(times[~failures[:, member], member])
        for member in (PRIMARY, CANDIDATE):
            self.latency[member].add(answered[member])
        self.agreement.update(same[~failures.any(axis=1)])
        self.errors_pairs.update(failures[:, 1].astype(np.int64) - failures[:, 0])

    def observe_alone(self, member: int, failed: ArrayLike, latency_ms: ArrayLike) -> None:
        """Adds n requests that only ``PRIMARY`` or ``CANDIDATE`` was asked; both shape (n,)."""
        failures = np.asarray(failed, np.bool_).reshape(-1)
        self.latency[member].update(np.asarray(latency_ms, np.float64).reshape(-1)[~failures])
        self.errors_alone.update(failures * (1 if member == CANDIDATE else -1))
        self.alone.update(np.full(failures.size, member))

    def samples(self, mirrored: bool) -> int:
        """Comparisons so far: pairs, or without a mirror the candidate's requests."""
        return int(self.errors_pairs.counts.sum() if mirrored else self.alone.counts[CANDIDATE])

    def labels(self, mirrored: bool) -> int:
        """Comparisons so far whose right answer is known."""
        return int((self.quality_pairs if mirrored else self.quality_alone).counts.sum())

    def add(self, other: StepEvidence) -> None:
        """Adds what another replica has seen."""
        for name in _MEANS:
            getattr(self, name).add(getattr(other, name))
        for member in (PRIMARY, CANDIDATE):
            self.latency[member].add(other.latency[member])

    def plain(self) -> dict[str, Any]:
        """As values that JSON has; ``read`` gives the same counts back."""
        return {
            **{name: getattr(self, name).counts.tolist() for name in _MEANS},
            "latency": [
                {str(bin_): int(each.counts[bin_]) for bin_ in np.flatnonzero(each.counts)}
                for each in self.latency
            ],
        }

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """Reads what ``plain`` wrote.

        Raises:
            InvalidArgument: it did not write this.
        """
        evidence = cls()
        try:
            for name in _MEANS:
                empty = getattr(evidence, name)
                setattr(evidence, name, Mean(empty.values, plain[name]))
            first, second = (_dense(each) for each in plain["latency"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise InvalidArgument("this is no evidence of a fade's step") from None
        evidence.latency = (Latencies(first), Latencies(second))
        return evidence


def _dense(sparse: Mapping[str, int]) -> list[int]:
    counts = [0] * BINS
    for bin_, count in sparse.items():
        counts[int(bin_)] = count
    return counts
