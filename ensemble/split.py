"""One member for each request, the same one for the same key; and whether the shares came true."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from crossfade.ensemble.tails import binomial_two_sided, chi_square_tail
from crossfade.runtimes.core.errors import FailedPrecondition

BASIS_POINTS: Final = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Shares of the traffic in basis points; immutable and thread-safe.

    The first member is the primary. The others lie side by side from the start of the key space
    and the primary has the rest: a share that grows at the primary's cost takes keys from it, and
    gives none back (with more than one other member: the last one's share).

    Attributes:
        name: the ensemble's name. It salts the hash: two ensembles split independently.
        weights: whole basis points that sum to 10,000.
    """

    name: str
    weights: tuple[int, ...]
    _ends: tuple[int, ...] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights) or sum(self.weights) != BASIS_POINTS:
            raise FailedPrecondition(
                f"the weights of a split are basis points, none negative, that sum to "
                f"{BASIS_POINTS:,}; these sum to {sum(self.weights):,}"
            )
        object.__setattr__(self, "_ends", tuple(itertools.accumulate(self.weights[1:])))

    def choose(self, key: str | None, rng: random.Random) -> int:
        """The member for a request.

        Args:
            key: whose requests belong together; without one (or with an empty one) the choice is
                random for each request.
            rng: used only without a key; one generator may serve many threads.
        """
        bucket = bucket_of(self.name, key) if key else int(rng.random() * BASIS_POINTS)
        place = bisect_right(self._ends, bucket)
        return place + 1 if place < len(self._ends) else 0


def bucket_of(name: str, key: str) -> int:
    """0 .. 9,999 for a key; the same in every process, on every machine and Python."""
    data = f"{name}\0{key}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
    return (number * BASIS_POINTS) >> 64


def sample_ratio_p_value(counts: Sequence[int], weights: Sequence[int]) -> float:
    """How probable counts at least this far from their shares are, if the split works.

    Chi-square where every member is expected five times or more; below that exact binomial tests
    of each member's count, with Bonferroni's correction. For one look at the counts: a monitor
    that looks again and again needs a sequential test.

    Args:
        counts: requests, or better distinct keys, that each member had.
        weights: basis points.
    """
    total = sum(counts)
    if any(count and not weight for count, weight in zip(counts, weights, strict=True)):
        return 0.0
    cells = [
        (count, weight / BASIS_POINTS)
        for count, weight in zip(counts, weights, strict=True)
        if weight
    ]
    if total == 0 or len(cells) == 1:
        return 1.0
    if all(total * share >= 5 for _, share in cells):
        distance = sum((count - total * share) ** 2 / (total * share) for count, share in cells)
        return chi_square_tail(distance, len(cells) - 1)
    tests = 1 if len(cells) == 2 else len(cells)  # of two counts the one decides the other
    return min(1.0, tests * min(binomial_two_sided(count, total, p) for count, p in cells))
