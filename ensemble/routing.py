"""One member answers each request; others may get a copy: ``split``, ``shadow`` and fades."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence

from crossfade.ensemble.asking import Ask
from crossfade.ensemble.keys import Key
from crossfade.ensemble.measures import Measure, Tally
from crossfade.ensemble.mirror import Mirror
from crossfade.ensemble.observing import Observer, Outcome, tell_alone
from crossfade.ensemble.ratio import SampleRatio
from crossfade.ensemble.split import BASIS_POINTS, Split
from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.core.model import (
    InferRequest,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Shares:
    """Where requests go.

    Attributes:
        weights: of the members that answer, in basis points that sum to 10,000.
        mirrored: of the requests that all other members get a copy of, in basis points.
    """

    weights: tuple[int, ...]
    mirrored: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Route:
    """Shares in use, and what has been seen of them."""

    split: Split
    mirrored: int
    ratio: SampleRatio


class Router:
    """Gives each request to one of several members. Thread-safe.

    Args:
        name: of the ensemble; salts the choice.
        names: of the members; the first one is the primary.
        shares: at first; see ``route``.
        key: by which the choice is sticky; without one each request is a draw of its own.
        mirror: runs the copies; ``None`` makes none.
        observers: are told of the requests that were answered and not copied.
        rng: draws.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        shares: Shares,
        *,
        key: Key | None = None,
        mirror: Mirror | None = None,
        observers: Sequence[Observer] = (),
        rng: random.Random | None = None,
    ) -> None:
        self._name = name
        self._names = names
        self._key = key
        self.mirror = mirror
        self._observers = observers
        self._rng = rng or random.Random()
        self._tally = Tally()
        self._route = self._made(shares)

    @property
    def headers(self) -> tuple[str, ...]:
        """See ``ModelMetadata``."""
        return self._key.headers if self._key else ()

    @property
    def shares(self) -> Shares:
        """Where requests go now."""
        return Shares(self._route.split.weights, self._route.mirrored)

    def route(self, shares: Shares) -> None:
        """Changes where requests go, at once for all that come from now on.

        Raises:
            FailedPrecondition: the shares are none, or not as many as members.
        """
        self._route = self._made(shares)

    def infer(
        self, requests: Sequence[InferRequest], ask: Ask, ask_later: Ask | None = None
    ) -> list[Outcome]:
        """Answers each request, in order; those for one member travel together.

        Args:
            requests: any number.
            ask: the members.
            ask_later: the same for copies, from other threads, where that is different.
        """
        route = self._route
        groups: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            key = self._key.of(request) if self._key else None
            member = route.split.choose(key, self._rng)
            route.ratio.add(member, key)
            groups.setdefault(member, []).append(index)
        found: dict[int, Outcome] = {}
        for member, places in groups.items():
            asked = [requests[place] for place in places]
            outcomes = ask(member, asked)
            self._follow(route, asked, outcomes, ask_later or ask)
            found.update(zip(places, outcomes, strict=True))
        return [found[index] for index in range(len(requests))]

    def close(self) -> None:
        """Drops copies that wait."""
        if self.mirror is not None:
            self.mirror.close()

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``."""
        weights = self._route.split.weights
        is_split = len(weights) - weights.count(0) > 1
        if is_split or self.mirror is None:  # of a shadow there is nothing to say
            yield Measure(
                "split_requests",
                "counter",
                "Requests by the member that answered",
                ("member", "result"),
                self._tally.values(),
            )
        if is_split:
            yield self._gauge(
                "split_share",
                "Share of the requests that a member is to answer",
                [weight / BASIS_POINTS for weight in weights],
            )
            yield self._gauge(
                "split_keys",
                "Distinct keys, and requests without one, since the shares changed",
                self._route.ratio.counts(),
            )
            yield Measure(
                "split_sample_ratio_p_value",
                "gauge",
                "Probability of counts at least this far from the shares, if the split works",
                (),
                {(): self._route.ratio.p_value()},
            )
        if self.mirror is not None:
            yield from self.mirror.measures()

    def _gauge(self, name: str, help_text: str, values: Sequence[float]) -> Measure:
        by_member = {(member,): float(v) for member, v in zip(self._names, values, strict=True)}
        return Measure(name, "gauge", help_text, ("member",), by_member)

    def _made(self, shares: Shares) -> _Route:
        if len(shares.weights) != len(self._names):
            raise FailedPrecondition("a split has a weight for each member")
        if not 0 <= shares.mirrored <= BASIS_POINTS:
            raise FailedPrecondition(f"mirrored is 0 to {BASIS_POINTS:,} basis points")
        split = Split(self._name, shares.weights)
        return _Route(split, shares.mirrored, SampleRatio(shares.weights))

    def _follow(
        self,
        route: _Route,
        requests: Sequence[InferRequest],
        outcomes: Sequence[Outcome],
        ask: Ask,
    ) -> None:
        """Counts, has copies made, and tells the observers of what was not copied."""
        alone: list[int] = []
        for place, outcome in enumerate(outcomes):
            self._tally.add(self._names[outcome.member], "error" if outcome.failed else "ok")
            is_copied = (
                self.mirror is not None
                and route.mirrored > 0
                and self._rng.random() * BASIS_POINTS < route.mirrored
                and self.mirror.offer(requests[place], outcome, ask)
            )
            if not is_copied:
                alone.append(place)
        if alone and self._observers:
            tell_alone(self._observers, [requests[p] for p in alone], [outcomes[p] for p in alone])
