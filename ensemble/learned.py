"""Learned weights as a file beside an ensemble's configuration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Self

from crossfade.ensemble.combine import Rule
from crossfade.ensemble.labels import canonical
from crossfade.ensemble.weights import WeightsReport
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument

FILE = "weights.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """What a fit found, by the members' names.

    Attributes:
        labels: the classes that ``bias`` is for, in its order.
        doubt: see ``Combination``.
        log_loss: that is expected of the ensemble, in nats; ``None`` is not known.
    """

    weights: Mapping[str, float]
    temperatures: Mapping[str, float]
    rule: Rule
    bias: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    doubt: float = 0.0
    log_loss: float | None = None

    @classmethod
    def read(cls, text: str, members: Sequence[str]) -> Self:
        """Reads a ``WeightsReport`` as JSON, which may also have ``labels``, those of the fit.

        Args:
            text: the JSON.
            members: names of the ensemble's members, which the report must be of.

        Raises:
            FailedPrecondition: it is no such report, or not of these members.
        """
        try:
            read = json.loads(text)
            labels = read.pop("labels", ()) if isinstance(read, dict) else ()
            report = WeightsReport.from_json(json.dumps(read))
            classes = tuple(str(label) for label in labels)
        except (ValueError, TypeError, InvalidArgument):
            raise FailedPrecondition(f"{FILE}: this is not a report of learned weights") from None
        names = [member.name for member in report.members]
        if sorted(names) != sorted(members):
            raise FailedPrecondition(
                f"{FILE}: the weights are of the members {sorted(names)}, not {sorted(members)};"
                " fit them again"
            )
        fit = report.fit
        if len(fit.weights) != len(names) or (fit.bias and len(fit.bias) != len(classes)):
            raise FailedPrecondition(
                f"{FILE}: needs a weight for each member, and for a bias labels"
            )
        return cls(
            dict(zip(names, fit.weights, strict=True)),
            {member.name: member.temperature for member in report.members},
            fit.rule,
            fit.bias,
            classes,
            report.doubt,
            report.nested_log_loss,
        )

    def bias_for(self, labels: Sequence[str]) -> tuple[float, ...]:
        """The bias in the order of ``labels``.

        Raises:
            FailedPrecondition: they are other labels than those of the fit.
        """
        place = {canonical(label): number for number, label in enumerate(self.labels)}
        if sorted(place) != sorted(labels):
            raise FailedPrecondition(f"{FILE}: the members have other labels now; fit them again")
        return tuple(self.bias[place[label]] for label in labels)
