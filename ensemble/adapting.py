"""Weights of a mixture that follow ground truth: bounded, frozen on drift, replayable.

The learner. Exponentiated gradient (Kivinen and Warmuth, "Exponentiated gradient versus gradient
descent for linear predictors", Information and Computation 132, 1997) on the log-loss of the
mixture: with the members' probabilities p of the true class and weights w,

    v_i = w_i · exp(rate · p_i / (w · p)),

then v is projected, by relative entropy, onto the weights that are at least ``min_weight``, so
that no member is ever too small to come back. This is the projected form of fixed share
(Cesa-Bianchi, Gaillard, Lugosi and Stoltz, "Mirror descent meets fixed share (and feels no
regret)", NIPS 2012). For any sequence of weights u_1 ... u_T that are at least b = ``min_weight``,
on any data,

    sum of losses(w_t) - sum of losses(u_t)  <=  (1 + S) ln(1/b) / rate + rate · T / (8 b^2),

where S is the sum of the halves of |u_t - u_(t-1)|, the weight that the sequence moves: the
gradient p_i / (w · p) is at most 1 / b, each step loses at most rate / (8 b^2) by Hoeffding's
lemma, and what is left telescopes. It holds as long as no step is cut by ``max_step``, in the
order in which the truths come; w_t are the weights when truth t comes, not when the request was
answered. A truth that comes late is one more step, whenever it comes.

The freeze. Against "the log-loss, given the past, is on average at most the reference plus
``tolerance``" gamblers bet fixed shares of their wealth. New ones join at each step t with
1 / (t (t + 1)) between them, 1 in total, so that a late drift is found, too. The wealth of all is
a non-negative supermartingale with what is still to join, hence (Ville) it ever reaches 1 / alpha
with probability alpha at most, however long it goes on. What they see of a loss is cut at the
``_worst`` one, which only makes it smaller. (Bets: Waudby-Smith and Ramdas, JRSS B 86, 2024.)

Everything is a pure function of plain values, with operations that give the same bits on every
machine: IEEE arithmetic, exact sums, and the correctly rounded exp and ln of ``decimal``.
"""

from __future__ import annotations

import dataclasses
import decimal
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from crossfade.ensemble.scores import FLOOR
from crossfade.runtimes.core.errors import InvalidArgument

LEARNER: Final = 1  # the version of the arithmetic: rises when it gives other bits
Weights = tuple[float, ...]
_BETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # shares of a wealth
_DAY_S: Final = 86_400
_WORST_NATS: Final = 4.0
_EXACT: Final = decimal.Context(prec=25)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How weights follow.

    Attributes:
        rate: of the learner, above 0.
        window: truths that the reference is made of where none is given, and after which weights
            are looked at as good ones.
        max_step: how far a weight may get in one day (UTC) from where it was at its beginning.
        min_weight: no weight is less.
        tolerance: nats by which the log-loss may be worse than the reference.
        alpha: the chance of ever freezing while it is no worse than that.
    """

    rate: float
    window: int
    max_step: float
    min_weight: float
    tolerance: float
    alpha: float


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """What the weights of one ensemble begin from. Two that are equal share what they learn.

    Attributes:
        name, version: of the ensemble.
        members: names, in order.
        labels: that the members' claims are about, sorted.
        fitted: weights by fit or configuration, not negative, with sum 1.
        reference: the log-loss that is expected, in nats; ``None`` takes the first window's.
        learner: version of the arithmetic that follows.
    """

    name: str
    version: int
    members: tuple[str, ...]
    labels: tuple[str, ...]
    fitted: Weights
    reference: float | None
    settings: Settings
    learner: int = LEARNER

    def to_json(self) -> str:
        """As a JSON object."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what ``to_json`` wrote."""
        read: dict[str, Any] = json.loads(text)
        lists = {name: tuple(read[name]) for name in ("members", "labels", "fitted")}
        return cls(**{**read, **lists, "settings": Settings(**read["settings"])})

    @property
    def digest(self) -> str:
        """Of everything in it, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Where the weights are.

    Attributes:
        weights: that answer now.
        day: the newest one of which a truth came, in days since 1970.
        since: the weights at its beginning.
        good: the weights to go back to.
        reference: the log-loss that is expected; ``None`` until the first window is over.
        window_loss: sum of this window's losses.
        window_count: their number.
        looks: losses that were compared with the reference.
        wealth: of the gamblers, by their bet.
        frozen: whether the loss was found to be too high.
    """

    weights: Weights
    day: int
    since: Weights
    good: Weights
    reference: float | None
    window_loss: float = 0.0
    window_count: int = 0
    looks: int = 0
    wealth: tuple[float, ...] = (0.0,) * len(_BETS)
    frozen: bool = False

    def to_json(self) -> str:
        """As a JSON object; its numbers are read again to the bit."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what ``to_json`` wrote."""
        read: dict[str, Any] = json.loads(text)
        lists = {name: tuple(read[name]) for name in ("weights", "since", "good", "wealth")}
        return cls(**{**read, **lists})


def begin(setup: Setup) -> State:
    """The weights before any truth: the fitted ones, raised to ``min_weight``.

    Raises:
        InvalidArgument: ``min_weight`` is too large for so many members.
    """
    least = setup.settings.min_weight
    if not 0 < least * len(setup.members) <= 1:
        raise InvalidArgument(
            f"min_weight is {least:g}: {len(setup.members)} members cannot all weigh so much"
        )
    weights = at_least(setup.fitted, least)
    return State(weights, 0, weights, weights, setup.reference)


def step(settings: Settings, state: State, claims: Sequence[float], at_s: float) -> State:
    """The state after one truth; a frozen one stays as it is.

    Args:
        settings: of the setup.
        state: before it.
        claims: the members' probabilities of the true class, [M].
        at_s: when the truth came, in seconds since 1970; an earlier day than the newest counts
            as that.
    """
    if state.frozen:
        return state
    claims = [max(claim, FLOOR) for claim in claims]
    mixed = math.fsum(w * p for w, p in zip(state.weights, claims, strict=True))
    state = _watched(settings, state, _loss(mixed))
    if state.frozen:
        return state
    day = int(at_s // _DAY_S)
    if day > state.day:
        state = dataclasses.replace(state, day=day, since=state.weights)
    best = max(claims)  # exponents of 0 at most cannot overflow; the scale does not matter
    grown = [
        w * _exp(settings.rate * (p - best) / mixed)
        for w, p in zip(state.weights, claims, strict=True)
    ]
    weights = at_least(grown, settings.min_weight)
    weights = _within(settings.max_step, state.since, weights)
    return _judged(settings, dataclasses.replace(state, weights=weights))


def resumed(state: State) -> State:
    """What an operator makes of a frozen state: it goes on, with a reference made anew."""
    return State(state.weights, state.day, state.weights, state.good, None)


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One step as it is kept.

    Attributes:
        claims: the members' probabilities of the true class; none for ``resume``.
    """

    action: str  # update, freeze, resume
    claims: tuple[float, ...]
    at_s: float


def replay(setup: Setup, events: Iterable[Event]) -> Iterable[State]:
    """The state at the beginning, and after each event."""
    state = begin(setup)
    yield state
    for event in events:
        resumes = event.action == "resume"
        state = resumed(state) if resumes else step(setup.settings, state, event.claims, event.at_s)
        yield state


def at_least(values: Sequence[float], least: float) -> Weights:
    """The nearest weights by relative entropy that are at least ``least`` and sum to 1.

    Args:
        values: [M], not negative, not all 0.
        least: at most 1 / M.
    """
    low: set[int] = set()
    while True:
        rest = math.fsum(v for i, v in enumerate(values) if i not in low)
        share = 1 - least * len(low)
        scaled = [
            least if i in low or rest <= 0 else v / rest * share for i, v in enumerate(values)
        ]
        more = {i for i, v in enumerate(scaled) if v < least}
        if not more:
            return tuple(scaled)
        low |= more


def _within(most: float, since: Weights, weights: Weights) -> Weights:
    """As far from ``since`` to ``weights`` as no weight changes by more than ``most``."""
    farthest = max(abs(w - s) for w, s in zip(weights, since, strict=True))
    if farthest <= most:
        return weights
    part = most / farthest
    return tuple(s + part * (w - s) for w, s in zip(weights, since, strict=True))


def _watched(settings: Settings, state: State, loss: float) -> State:
    """Counts a loss, and freezes once it is shown that losses are too high."""
    state = dataclasses.replace(
        state, window_loss=state.window_loss + loss, window_count=state.window_count + 1
    )
    if state.reference is None:
        return state
    allowed = state.reference + settings.tolerance
    worst = _worst(allowed)
    gain = min(loss, worst) / allowed - 1
    looks = state.looks + 1
    joins = 1 / (looks * (looks + 1) * len(_BETS))
    wealth = tuple(
        (w + joins) * (1 + bet * gain) for w, bet in zip(state.wealth, _BETS, strict=True)
    )
    state = dataclasses.replace(state, looks=looks, wealth=wealth)
    if math.fsum(wealth) < 1 / settings.alpha:
        return state
    return dataclasses.replace(state, weights=state.good, frozen=True)


def _judged(settings: Settings, state: State) -> State:
    """At the end of a window: were these weights good?"""
    if state.window_count < settings.window:
        return state
    mean = state.window_loss / state.window_count
    reference = mean if state.reference is None else state.reference
    is_good = mean <= reference + settings.tolerance
    return dataclasses.replace(
        state,
        reference=reference,
        good=state.weights if is_good else state.good,
        window_loss=0.0,
        window_count=0,
    )


def _worst(allowed: float) -> float:
    """Larger losses count as this one: it bounds what one of them can win."""
    return max(_WORST_NATS, 2 * allowed)


def _exp(value: float) -> float:
    return float(decimal.Decimal(value).exp(_EXACT))


def _loss(probability: float) -> float:
    return max(0.0, -float(decimal.Decimal(probability).ln(_EXACT)))
