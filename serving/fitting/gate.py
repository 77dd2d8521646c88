"""The gate of a ``cascade``, solved on a sample."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.calibration import fit_temperature
from crossfade.ensemble.cascade import Cascade
from crossfade.ensemble.gate import CascadeSample, Measure, within_cost, within_harm
from crossfade.ensemble.labels import LabelAlignment
from crossfade.ensemble.members import Known
from crossfade.ensemble.scores import log_scores
from crossfade.ensemble.solved import SolvedGate
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.fitting.sample import Sample
from crossfade.serving.lifecycle import routing

DELTA: Final = 0.05  # how often a guarantee may fail
# A temperature is one number: a fifth of the rows tells it well enough.
_CALIBRATION_SHARE: Final = 0.2
_LEAST_CALIBRATION: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """What is asked for: one of the two.

    Attributes:
        harm: the share of requests that the cascade may get wrong and the last stage right.
        cost: of a request on average, in the unit of ``costs``.
        costs: of each stage; empty is the measured time of a row in ms.
        measure: of confidence.
    """

    harm: float | None = None
    cost: float | None = None
    costs: tuple[float, ...] = ()
    measure: Measure = Measure.MAXIMUM

    @property
    def least_rows(self) -> int:
        """Rows without which nothing can be proved, those for the temperatures included."""
        solving = 1
        if self.harm is not None:
            solving = math.ceil(math.log(DELTA) / math.log1p(-self.harm))
        calibration = max(
            _LEAST_CALIBRATION,
            math.ceil(solving * _CALIBRATION_SHARE / (1 - _CALIBRATION_SHARE)),
        )
        return solving + calibration + 1


def cascade_of(section: config.Cascade, known: Sequence[Known]) -> Cascade:
    """The cascade as it is served, but for its gate.

    Raises:
        FailedPrecondition: the stages do not fit together.
    """
    return _cascade(section, known, (1.0,) * len(known))


def _cascade(
    section: config.Cascade, known: Sequence[Known], temperatures: Sequence[float]
) -> Cascade:
    stages = tuple(
        stage.model_copy(update={"temperature": temperature})
        for stage, temperature in zip(section.stages, temperatures, strict=True)
    )
    bare = section.model_copy(update={"gate": None, "stages": stages})
    return routing.cascade(bare, "", Path())([(one.name, one) for one in known]).cascade


def solve(
    section: config.Cascade, known: Sequence[Known], sample: Sample, budget: Budget
) -> SolvedGate:
    """Fits the temperatures on a fifth of the rows, and the threshold on the others.

    Raises:
        InvalidArgument: costs that do not fit, or a budget that cannot be kept.
    """
    costs = budget.costs or sample.row_ms
    if len(costs) != len(known):
        raise InvalidArgument(f"{len(known)} stages need as many costs, not {len(costs)}")
    order = np.random.default_rng(0).permutation(sample.rows)
    cut = max(_LEAST_CALIBRATION, round(sample.rows * _CALIBRATION_SHARE))
    calibration, rest = order[:cut], order[cut:]
    plain = cascade_of(section, known)
    temperatures = _temperatures(plain, sample, calibration)
    cascade = _cascade(section, known, temperatures)
    stages = [cascade.probabilities(at, one[rest]) for at, one in enumerate(sample.scores)]
    labelled = CascadeSample.of(stages, sample.truth[rest], costs, budget.measure)
    if budget.cost is not None:
        report = within_cost(labelled, budget.cost, DELTA)
    else:
        assert budget.harm is not None
        report = within_harm(labelled, budget.harm, DELTA)
    return SolvedGate(report, dict(zip(sample.names, temperatures, strict=True)))


def _temperatures(
    cascade: Cascade, sample: Sample, rows: npt.NDArray[np.intp]
) -> tuple[float, ...]:
    """Of each stage, on rows whose label it knows; 1 where there are none."""
    alignment = LabelAlignment.of([one.labels for one in cascade.scores])
    found = []
    for at, declared in enumerate(cascade.scores):
        own = np.full(len(alignment.labels), -1, np.intp)
        own[alignment.positions[at]] = np.arange(len(alignment.positions[at]))
        targets = own[sample.truth[rows]]
        known = targets >= 0
        logs = log_scores(
            sample.scores[at][rows[known]], declared.kind, quantization=declared.quantization
        )
        found.append(fit_temperature(logs, targets[known]) if known.any() else 1.0)
    return tuple(found)
