"""The weights of a ``weighted`` ensemble, learned from a sample."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from crossfade.ensemble.combine import Combination, Rule
from crossfade.ensemble.members import Known
from crossfade.ensemble.scores import Floats
from crossfade.ensemble.weights import WeightsReport, learn_weights
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.fitting.sample import Sample, only_output, unseen
from crossfade.serving.lifecycle.ensembles import weighted

FOLDS: Final = 5
LEAST_ROWS: Final = 2 * FOLDS


@dataclasses.dataclass(frozen=True, slots=True)
class LearnedWeights:
    """What was learned, and the rows behind it.

    Attributes:
        labels: of the ensemble, the order of a bias.
        logs: [M, N, C] log-scores as the members answer, labels aligned.
        asked_for: the candidate was not chosen but given.
    """

    report: WeightsReport
    labels: tuple[str, ...]
    logs: Floats
    asked_for: bool = False

    def to_json(self) -> str:
        """The content of ``weights.json``."""
        plain = json.loads(self.report.to_json())
        return json.dumps({**plain, "labels": list(self.labels)})


def pool_of(
    section: config.Weighted, known: Sequence[Known], wanted: str | None
) -> tuple[str, Combination]:
    """The output that weights are learned for, and how it is served, as if nothing were learned.

    Raises:
        InvalidArgument: its members have no exclusive classes, or the output is not clear.
        FailedPrecondition: the members do not fit together.
    """
    if section.boxes is not None:
        raise InvalidArgument("the members are detectors, whose boxes are fused without a fit")
    pools = weighted(section).pools(known)
    output = only_output(list(pools), wanted)
    members = pools[output].members
    if not all(one.kind.exclusive for one in members):
        raise InvalidArgument(
            "weights are learned for classes that exclude each other (scores: probabilities or"
            f" logits), not for {members[0].kind.value}"
        )
    # Temperatures are learned, so the scores are taken as the members give them.
    plain = tuple(dataclasses.replace(one, temperature=1.0) for one in members)
    return output, Combination(plain, (1 / len(plain),) * len(plain), Rule.PROBABILITY)


def learn(
    pool: Combination, sample: Sample, *, allow_unseen: bool, candidate: str | None = None
) -> LearnedWeights:
    """Learns weights; those of a candidate, if one is given.

    Raises:
        InvalidArgument: too few rows, or a label that no row has.
    """
    missing = unseen(sample, pool.labels)
    if missing and not allow_unseen:
        raise InvalidArgument(
            f"no row has the label {', '.join(map(repr, missing[:8]))}: weights would be blind for"
            " it; add such rows, or --allow-unseen where none will come"
        )
    logs = pool.log_scores(sample.scores)
    report = learn_weights(logs, sample.truth, sample.names, folds=FOLDS, candidate=candidate)
    return LearnedWeights(report, pool.labels, np.asarray(logs), candidate is not None)
