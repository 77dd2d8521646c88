"""When a cascade may stop: the confidence of an answer, and a threshold with a guarantee."""

from __future__ import annotations

import bisect
import dataclasses
import enum
import json
import math
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.scores import Floats
from crossfade.ensemble.tails import binomial_cdf, binomial_upper
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

Doubles = npt.NDArray[np.float64]


class Measure(enum.Enum):
    """What counts as confidence; each is 0 .. 1, and 1 is certain."""

    MAXIMUM = "maximum"  # the probability of the likeliest class
    MARGIN = "margin"  # how far the second is behind it
    ENTROPY = "entropy"  # 1 - entropy / log(classes)


def confidence(probabilities: Tensor, measure: Measure) -> Floats:
    """How sure an answer is: [...] of calibrated probabilities [..., C] with two classes or more.

    Raises:
        InvalidArgument: fewer than two classes.
    """
    if probabilities.ndim == 0 or probabilities.shape[-1] < 2:
        raise InvalidArgument("a gate needs the probabilities of two classes or more")
    p = probabilities.astype(np.float32, copy=False)
    if measure is Measure.MAXIMUM:
        return np.asarray(p.max(axis=-1))
    if measure is Measure.MARGIN:
        top = np.partition(p, -2, axis=-1)[..., -2:]
        return np.asarray(top[..., 1] - top[..., 0])
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    entropy = -np.sum(p * logs, axis=-1) / np.float32(math.log(p.shape[-1]))
    return np.asarray(np.clip(1 - entropy, 0, 1))


# The thresholds are fixed before any data are seen, as the tests in sequence demand: even steps of
# log-odds, fine where a calibrated member decides.
THRESHOLDS: Final[tuple[float, ...]] = (
    0.0,
    *(round(1 / (1 + math.exp(-step / 10)), 7) for step in range(-60, 121)),
)


@dataclasses.dataclass(frozen=True, slots=True)
class GateReport:
    """A threshold for all stages of a cascade but the last, and what it does on the fitted rows.

    Attributes:
        threshold: a stage answers where its confidence is at least this; ``None``: it never does,
            every request goes to the last stage.
        measure: the confidence that is compared.
        rows: that were labelled.
        reach: [S] share of the requests that get to each stage; the last is the deferral rate
            of a cascade of two.
        expected_cost: of a request, in the unit of the costs given.
        full_cost: of the last stage alone.
        accuracy: of the cascade.
        full_accuracy: of the last stage alone.
        harm: share of the requests that the cascade gets wrong and the last stage right; the
            accuracy falls by no more.
        harm_bound: with probability ``1 - delta`` the harm is at most this (Clopper-Pearson).
        cost_bound: with probability ``1 - delta`` the expected cost is at most this.
        delta: how often, at most, the guarantee of the budget may fail. It is one guarantee: of
            the bound that was asked for, not of both at once.
    """

    threshold: float | None
    measure: Measure
    rows: int
    reach: tuple[float, ...]
    expected_cost: float
    full_cost: float
    accuracy: float
    full_accuracy: float
    harm: float
    harm_bound: float
    cost_bound: float
    delta: float

    def to_json(self) -> str:
        """The report as a JSON object."""
        return json.dumps(dataclasses.asdict(self), default=lambda measure: measure.value)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what ``to_json`` wrote.

        Raises:
            InvalidArgument: it is not such a report.
        """
        try:
            read: dict[str, Any] = json.loads(text)
            read["measure"] = Measure(read["measure"])
            read["reach"] = tuple(read["reach"])
            return cls(**read)
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidArgument("this is not a report of a gate") from error


@dataclasses.dataclass(frozen=True, slots=True)
class CascadeSample:
    """Labelled rows that every stage has answered; no stage was trained or calibrated on them.

    Attributes:
        confidences: [S - 1, N] of all stages but the last, by ``measure``.
        right: [S, N] whether the stage's answer is right.
        costs: [S] of running each stage, in any unit; a request pays for each stage it reaches.
    """

    confidences: Floats
    right: npt.NDArray[np.bool_]
    costs: tuple[float, ...]
    measure: Measure

    @classmethod
    def of(
        cls,
        stages: Sequence[Tensor],
        labels: npt.NDArray[np.intp],
        costs: Sequence[float],
        measure: Measure = Measure.MAXIMUM,
    ) -> Self:
        """From calibrated probabilities [N, C] of each stage, the cheapest first.

        Raises:
            InvalidArgument: fewer than two stages, no rows, shapes that do not fit, costs that
                are not positive.
        """
        if len(stages) < 2 or len(costs) != len(stages) or min(costs) <= 0:
            raise InvalidArgument("a cascade has two stages or more, each with a positive cost")
        if not len(labels) or any(stage.shape[:1] != labels.shape for stage in stages):
            raise InvalidArgument("every stage needs one row of probabilities for each label")
        return cls(
            np.stack([confidence(stage, measure) for stage in stages[:-1]]),
            np.stack([stage.argmax(axis=-1) == labels for stage in stages]),
            tuple(costs),
            measure,
        )

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.right.shape[1])

    def stage_of(self, threshold: float) -> npt.NDArray[np.intp]:
        """The stage that answers each row [N]."""
        sure = self.confidences >= np.float32(threshold)
        return np.where(sure.any(axis=0), sure.argmax(axis=0), len(self.right) - 1)

    def harmed(self, threshold: float) -> int:
        """Rows that the cascade gets wrong and the last stage right."""
        answered = self.right[self.stage_of(threshold), np.arange(self.rows)]
        return int(np.sum(self.right[-1] & ~answered))

    def reached(self, threshold: float) -> list[int]:
        """Rows that get to each stage."""
        stage = self.stage_of(threshold)
        return [int(np.sum(stage >= s)) for s in range(len(self.right))]


def within_harm(sample: CascadeSample, harm: float, delta: float = 0.05) -> GateReport:
    """The lowest threshold that loses at most ``harm`` to the last stage, with a guarantee.

    Learn-then-test (Angelopoulos et al., 2021): from the most careful threshold on, each is
    tested against "the harm is larger" by the exact binomial test at level ``delta``; the last one
    before the first that fails is taken. Testing in a fixed order keeps the error of the whole
    search at ``delta``: with probability 1 - delta over the sample, the harm on new requests of
    the same kind is at most ``harm``.

    Args:
        sample: rows that were used for nothing else.
        harm: a share, as 0.005 for half a point. Without one harmed row the test needs
            log(delta) / log(1 - harm) rows: 598 for half a point at 0.05.
        delta: how often the guarantee may fail.
    """
    _check_share(harm, delta)
    chosen: float | None = None
    for threshold in reversed(THRESHOLDS):
        if binomial_cdf(sample.harmed(threshold), sample.rows, harm) > delta:
            break
        chosen = threshold
    return _report(sample, chosen, delta)


def within_cost(sample: CascadeSample, cost: float, delta: float = 0.05) -> GateReport:
    """The most careful threshold whose expected cost is at most ``cost``, with a guarantee.

    Fewer rows go on the lower the threshold is, so the bound falls with it and the thresholds
    need no search in order; each stage's reach is bounded exactly, at level ``delta`` in all.

    Raises:
        InvalidArgument: the budget is below what the lowest threshold can be shown to cost.
    """
    _check_share(0.5, delta)
    passed = bisect.bisect_right(THRESHOLDS, cost, key=lambda at: _cost_bound(sample, at, delta))
    if not passed:
        least = _cost_bound(sample, THRESHOLDS[0], delta)
        raise InvalidArgument(f"the cost is at most {least:g} at best; the budget is {cost:g}")
    return _report(sample, THRESHOLDS[passed - 1], delta)


def _cost_bound(sample: CascadeSample, threshold: float, delta: float) -> float:
    later = sample.reached(threshold)[1:]
    reach = [1.0, *(binomial_upper(k, sample.rows, delta / len(later)) for k in later)]
    return math.fsum(share * cost for share, cost in zip(reach, sample.costs, strict=True))


def _report(sample: CascadeSample, threshold: float | None, delta: float) -> GateReport:
    at = math.inf if threshold is None else threshold
    reach = tuple(count / sample.rows for count in sample.reached(at))
    harmed = sample.harmed(at)
    right = sample.right[sample.stage_of(at), np.arange(sample.rows)]
    return GateReport(
        threshold=threshold,
        measure=sample.measure,
        rows=sample.rows,
        reach=reach,
        expected_cost=math.fsum(s * c for s, c in zip(reach, sample.costs, strict=True)),
        full_cost=sample.costs[-1],
        accuracy=float(right.mean()),
        full_accuracy=float(sample.right[-1].mean()),
        harm=harmed / sample.rows,
        harm_bound=binomial_upper(harmed, sample.rows, delta) if threshold is not None else 0.0,
        cost_bound=_cost_bound(sample, at, delta),
        delta=delta,
    )


def _check_share(share: float, delta: float) -> None:
    if not (0 < share < 1 and 0 < delta < 1):
        raise InvalidArgument("harm and delta are shares between 0 and 1")
