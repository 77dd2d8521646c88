"""Which point to try next, from this task's trials and those of others.

RGPE: an ensemble of one Gaussian process for each earlier task and one for this, weighted by how
well each ranks the trials of this task (Feurer, Letham, Hutter and Bakshy 2018, arXiv:1802.02219).
Earlier tasks that rank no better than chance get no weight, so that one that misleads costs its
first suggestions and no more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from crossfade.training.tuning.gaussian_process import GaussianProcess, Vector
from crossfade.training.tuning.space import Space, Values

_SAMPLES: Final = 256
_CANDIDATES: Final = 1024
_LOCAL: Final = 256
_MOST_TRIALS: Final = 200
# From so many trials on, an ensemble is judged; before, earlier tasks are trusted alike.
_JUDGED_FROM: Final = 3
# Every so many trials the earlier tasks are not asked: whatever they are, this bounds their harm,
# and the last digits of an optimum are this task's own.
_ALONE_EVERY: Final = 3
_SHARPEN: Final = (0.05, 0.01, 0.002)


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """One trial with its outcome; smaller is better."""

    values: Values
    loss: float


@dataclasses.dataclass(frozen=True, slots=True)
class Belief:
    """Where good values are believed to be, from outside of any trial (piBO, arXiv:2204.11051).

    Its weight falls as ``strength / trials``, and no part of the space is shut.

    Attributes:
        values: the centre; parameters that are not in it are believed nothing of.
        width: standard deviation in the unit cube.
        strength: trials that it counts as.
    """

    values: Values
    width: float = 0.2
    strength: float = 5.0


class Suggester:
    """Suggests values to try. Not thread-safe.

    Attributes:
        weights: of each earlier task, and of this one at the end, at the last suggestion.
    """

    def __init__(
        self,
        space: Space,
        sources: Sequence[Sequence[Finished]] = (),
        *,
        seed: int = 0,
        belief: Belief | None = None,
    ) -> None:
        """Fits one process to each earlier task's trials; a task with fewer than two is left out.

        Args:
            space: of this task.
            sources: finished trials of earlier tasks, in the same space.
            seed: of all that is drawn.
            belief: where to look first.
        """
        self._space = space
        self._seed = seed
        self._belief = belief
        self._sources = [_fitted(space, source) for source in sources if len(source) > 1]
        self.weights: tuple[float, ...] = ()

    def suggest(self, trials: Sequence[Finished]) -> dict[str, float | int | str]:
        """The next values, from the finished trials of this task, in any order."""
        random = np.random.default_rng((self._seed, len(trials)))
        if not trials and not self._sources:
            return self._space.from_unit(self._first(random))
        points = np.array([self._space.to_unit(t.values) for t in trials]).reshape(
            len(trials), self._space.width
        )
        target = _fitted(self._space, trials) if len(trials) > 1 else None
        self.weights = self._weigh(target, points, trials, random)
        models = [*self._sources, *([target] if target is not None else [])]
        used = [(w, m) for w, m in zip(self.weights, models, strict=False) if w > 0]
        if not used:
            return self._space.from_unit(random.random(self._space.width))
        candidates = self._candidates(points, trials, random)
        best = self._best(used, candidates, points)
        for step in _SHARPEN:
            moved = best + step * random.standard_normal((_LOCAL, self._space.width))
            near = self._space.snap(np.concatenate([best[None], np.clip(moved, 0, 1)]))
            best = self._best(used, near, points)
        return self._space.from_unit(best)

    def _best(
        self, used: Sequence[tuple[float, GaussianProcess]], candidates: Vector, tried: Vector
    ) -> Vector:
        gain = _expected_improvement(used, candidates, tried)
        if self._belief is not None:
            gain *= self._believed(candidates) ** (self._belief.strength / max(len(tried), 1))
        best: Vector = candidates[int(np.argmax(gain))]
        return best

    def _first(self, random: np.random.Generator) -> Vector:
        if self._belief is None:
            return random.random(self._space.width)
        points = self._space.snap(random.random((_CANDIDATES, self._space.width)))
        nearest: Vector = points[int(np.argmax(self._believed(points)))]
        return nearest

    def _weigh(
        self,
        target: GaussianProcess | None,
        points: Vector,
        trials: Sequence[Finished],
        random: np.random.Generator,
    ) -> tuple[float, ...]:
        count = len(self._sources)
        if not count:
            return (1.0,)
        if target is None or len(trials) < _JUDGED_FROM:
            return (*[1 / count] * count, 0.0)
        if len(trials) % _ALONE_EVERY == _ALONE_EVERY - 1:
            return (*[0.0] * count, 1.0)
        losses = np.array([t.loss for t in trials])
        drawn = [model.sample(points, _SAMPLES, random) for model in self._sources]
        wrong = [_misranked(sample, sample, losses) for sample in drawn]
        mean, variance = target.left_out()
        own = mean + np.sqrt(variance) * random.standard_normal((_SAMPLES, len(trials)))
        wrong.append(_misranked(own, np.broadcast_to(target.values, own.shape), losses))
        return _shares(np.array(wrong), len(trials))

    def _candidates(
        self, points: Vector, trials: Sequence[Finished], random: np.random.Generator
    ) -> Vector:
        wide = random.random((_CANDIDATES, self._space.width))
        best = sorted(range(len(trials)), key=lambda i: trials[i].loss)[:4]
        centres = [points[i] for i in best]
        if centres:
            chosen = np.array(centres)[random.integers(len(centres), size=_LOCAL)]
            steps = random.standard_normal(chosen.shape) * random.choice((0.02, 0.1), (_LOCAL, 1))
            wide = np.concatenate([wide, np.clip(chosen + steps, 0, 1)])
        return self._space.snap(wide)

    def _believed(self, points: Vector) -> Vector:
        assert self._belief is not None
        adopted = self._space.adopt(self._belief.values).values
        middle = self._space.from_unit(np.full(self._space.width, 0.5))
        centre = self._space.to_unit({**middle, **adopted})
        known = self._space.to_unit({**middle, **adopted}) * 0
        start = 0
        for name, parameter in self._space.parameters.items():
            wide = len(getattr(parameter, "options", "x"))
            known[start : start + wide] = float(name in adopted)
            start += wide
        away = ((points - centre) * known / self._belief.width) ** 2
        density: Vector = np.exp(-0.5 * away.sum(1)) + 1e-6
        return density


def portfolio(
    space: Space, sources: Sequence[Sequence[Finished]], size: int
) -> list[dict[str, float | int | str]]:
    """The best values of earlier tasks, to be tried first: by turns, no two alike.

    Args:
        space: of the new task.
        sources: finished trials of earlier tasks.
        size: at most.
    """
    ranked = [sorted(source, key=lambda trial: trial.loss) for source in sources]
    found: list[Vector] = []
    for rank in range(max(map(len, ranked), default=0)):
        for source in ranked:
            if rank < len(source) and len(found) < size:
                point = space.to_unit(source[rank].values)
                if all(np.linalg.norm(point - other) > 0.1 for other in found):
                    found.append(point)
    return [space.from_unit(point) for point in found]


def _fitted(space: Space, trials: Sequence[Finished]) -> GaussianProcess:
    # The best and the latest, where there are more than a process takes in reasonable time.
    kept = list(trials)
    if len(kept) > _MOST_TRIALS:
        best = sorted(kept, key=lambda trial: trial.loss)[: _MOST_TRIALS // 2]
        kept = best + [t for t in kept[-_MOST_TRIALS // 2 :] if t not in best]
    points = np.array([space.to_unit(trial.values) for trial in kept])
    return GaussianProcess(points, _tamed(np.array([trial.loss for trial in kept])))


def _tamed(losses: Vector) -> Vector:
    """Losses with the worst tail cut: what is very bad need not be modelled exactly."""
    high = float(np.quantile(losses, 0.5) + 3 * (np.quantile(losses, 0.5) - losses.min()))
    tamed: Vector = np.minimum(losses, high) if high > losses.min() else losses
    return tamed


def _misranked(left: Vector, right: Vector, losses: Vector) -> Vector:
    """Of each sample [s, n], ordered pairs of trials that it ranks otherwise than the losses do."""
    predicted = left[:, :, None] < right[:, None, :]
    wrong = predicted != (losses[:, None] < losses[None, :])[None]
    differ = losses[:, None] != losses[None, :]
    counted: Vector = (wrong & differ[None]).sum((1, 2)).astype(float)
    return counted


def _shares(wrong: Vector, trials: int) -> tuple[float, ...]:
    """How often each model is the best [models, samples]; the last is this task's own.

    A tie goes to the own one. An earlier task is left out if it mostly does worse than the own
    one does at its worst, or no better than chance: this keeps many useless ones from diluting.
    """
    pairs = trials * (trials - 1)
    own = wrong[-1]
    median = np.median(wrong[:-1], axis=1)
    chance = 0.5 - 0.5 / math.sqrt(trials)
    useless = (median > np.quantile(own, 0.95)) | (median > max(chance, 0.25) * pairs)
    judged = wrong.copy()
    judged[:-1][useless] = np.inf
    least = judged.min(0)
    best = judged == least
    best[:-1, best[-1]] = False  # a tie
    shares = (best / best.sum(0)).mean(1)
    return tuple(float(share) for share in shares)


def _expected_improvement(
    weighted: Sequence[tuple[float, GaussianProcess]], candidates: Vector, tried: Vector
) -> Vector:
    mean, variance = np.zeros(len(candidates)), np.zeros(len(candidates))
    seen = np.zeros(len(tried))
    for weight, model in weighted:
        means, variances = model.predict(candidates)
        mean += weight * means
        variance += weight**2 * variances
        if len(tried):
            seen += weight * model.predict(tried)[0]
    # What is best so far by the ensemble's own scale, which is of no single task.
    best = seen.min() if len(tried) else float(np.quantile(mean, 0.01))
    deviation = np.sqrt(variance)
    z = (best - mean) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + _erf(z / math.sqrt(2)))
    gain: Vector = np.maximum(deviation * (z * below + density), 0) + 1e-300
    if len(tried):  # what was tried exactly is not tried again
        again = (np.abs(candidates[:, None] - tried[None]).max(2) < 1e-9).any(1)
        gain[again] = 0
    return gain


_erf = np.vectorize(math.erf, otypes=[float])
