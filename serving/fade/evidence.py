"""What was observed during one step of a fade: counts, whatever the order and the replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike

from crossfade.ensemble.sequential import BINS, Latencies, Mean, TwoRates
from crossfade.runtimes.core.errors import InvalidArgument

PRIMARY: Final = 0
CANDIDATE: Final = 1


class StepEvidence:
    """Everything that a step is judged by. Not thread-safe: one writer, or a lock around it.

    Attributes:
        quality_pairs: of labelled pairs, 1 where only the candidate was right, -1 where only the
            primary was, else 0.
        quality_arms: right answers among the labelled ones, of each member.
        agreement: of pairs that both answered, 1 where the answers were the same, else 0.
        errors_pairs: of pairs, 1 where only the candidate failed, -1 where only the primary did.
        errors_arms: failures among the requests that a member answered alone.
        latency: in milliseconds, of what the primary and the candidate answered.
    """

    def __init__(self) -> None:
        self.quality_pairs = Mean((-1, 0, 1))
        self.quality_arms = TwoRates()
        self.agreement = Mean((0, 1))
        self.errors_pairs = Mean((-1, 0, 1))
        self.errors_arms = TwoRates()
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
        self.errors_arms.update(member, failures)

    def samples(self, mirrored: bool) -> int:
        """Comparisons so far: pairs, or without a mirror the candidate's requests."""
        pairs, arms = self.errors_pairs.counts.sum(), self.errors_arms.totals[CANDIDATE]
        return int(pairs if mirrored else arms)

    def add(self, other: StepEvidence) -> None:
        """Adds what another replica has seen."""
        for name, mine in vars(self).items():
            if name != "latency":
                mine.add(getattr(other, name))
        for member in (PRIMARY, CANDIDATE):
            self.latency[member].add(other.latency[member])

    def plain(self) -> dict[str, Any]:
        """As values that JSON has; ``read`` gives the same counts back."""
        return {
            "quality_pairs": self.quality_pairs.counts.tolist(),
            "quality_arms": [self.quality_arms.hits.tolist(), self.quality_arms.totals.tolist()],
            "agreement": self.agreement.counts.tolist(),
            "errors_pairs": self.errors_pairs.counts.tolist(),
            "errors_arms": [self.errors_arms.hits.tolist(), self.errors_arms.totals.tolist()],
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
            evidence.quality_pairs = Mean((-1, 0, 1), plain["quality_pairs"])
            evidence.quality_arms = TwoRates(*plain["quality_arms"])
            evidence.agreement = Mean((0, 1), plain["agreement"])
            evidence.errors_pairs = Mean((-1, 0, 1), plain["errors_pairs"])
            evidence.errors_arms = TwoRates(*plain["errors_arms"])
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
