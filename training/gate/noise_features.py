"""Columns that are no better than noise: against shuffled copies of all, again and again.

After Boruta (Kursa, Rudnicki 2010): in each round every column has a shuffled shadow, and scores a
hit if the model gains more by it than by the best shadow. Hits are binomial with 1/2 for a column
that is like the best shadow; a column is noise if it has significantly fewer, and useful if it has
significantly more, at 5 % after Holm's correction for all columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from crossfade.training.gate.study import Study, boost
from crossfade.training.transforms import fitting
from crossfade.training.transforms.errors import InvalidSpec
from crossfade.training.transforms.fitting import Options

Array = npt.NDArray[Any]
Decision = Literal["useful", "noise", "open"]
ROUNDS: Final = 24
_TREES: Final = 40
_LEVEL: Final = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnUse:
    """One column; ``hits`` are rounds in which it was better than the best shadow."""

    column: str
    hits: int
    decision: Decision


def column_uses(study: Study, told: Callable[[int, int], None]) -> Sequence[ColumnUse]:
    """Decides for each column, the most useful first; one without values that differ is noise."""
    features: list[Array] = []
    names: list[str] = []
    for column in study.columns:
        try:
            _, dense, _ = fitting.fit_transform(
                study.table, [column], study.problem.encoded, Options("trees"), seed=study.seed
            )
        except InvalidSpec:
            continue
        features.append(dense.astype(np.float64))
        names.append(column.name)
    hits = _hits(study, features, told) if features else np.array([], np.int64)
    decided = _decide(hits, ROUNDS)
    found = [ColumnUse(n, int(h), d) for n, h, d in zip(names, hits, decided, strict=True)]
    found += [
        ColumnUse(c.name, 0, "noise") for c in study.columns if c.name not in frozenset(names)
    ]
    return sorted(found, key=lambda use: -use.hits)


def _hits(study: Study, features: Sequence[Array], told: Callable[[int, int], None]) -> Array:
    """Rounds won by each column; a column's features are shuffled and counted together."""
    rng = np.random.default_rng(study.seed)
    owner = np.repeat(np.arange(len(features)), [f.shape[1] for f in features])
    real = np.hstack(features)
    hits = np.zeros(len(features), np.int64)
    for step in range(ROUNDS):
        shadows = np.hstack([f[rng.permutation(len(f))] for f in features])
        rows = rng.integers(0, len(real), len(real))  # a bootstrap, so that rounds differ
        both = np.hstack([real, shadows])[rows]
        booster = boost(study, both, study.target[rows], _TREES, seed=step)
        gains = booster.feature_importance("gain")
        of_real = np.bincount(owner, gains[: len(owner)], len(features))
        of_shadow = np.bincount(owner, gains[len(owner) :], len(features))
        hits += of_real > of_shadow.max()
        told(step + 1, ROUNDS)
    return hits


def _decide(hits: Array, rounds: int) -> list[Decision]:
    decided: list[Decision] = ["open"] * len(hits)
    sides: Sequence[tuple[Decision, Callable[[int], float]]] = (
        ("useful", lambda h: _at_least(h, rounds)),
        ("noise", lambda h: _at_least(rounds - h, rounds)),
    )
    for decision, chance in sides:
        chances = [chance(int(h)) for h in hits]
        for rank, place in enumerate(np.argsort(chances, kind="stable")):
            if chances[place] > _LEVEL / 2 / (len(hits) - rank):  # Holm; both sides share the level
                break
            decided[place] = decision
    return decided


def _at_least(hits: int, rounds: int) -> float:
    """The chance of so many hits or more, at 1/2 each."""
    return float(sum(math.comb(rounds, k) for k in range(hits, rounds + 1)) / 2.0**rounds)
