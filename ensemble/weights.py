"""Weights learned from labelled predictions: calibrate, try several ways, choose, report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from crossfade.ensemble import mixtures
from crossfade.ensemble.calibration import expected_calibration_error, fit_temperature, log_loss
from crossfade.ensemble.combine import Rule
from crossfade.ensemble.mixtures import Doubles
from crossfade.ensemble.scores import FLOOR, doubted, log_softmax, softmax
from crossfade.ensemble.stacking import stack
from crossfade.runtimes.core.errors import InvalidArgument

Labels = npt.NDArray[np.intp]


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """What ``Combination`` needs: weights [M], the rule, and a bias [C] or none."""

    weights: tuple[float, ...]
    rule: Rule = Rule.PROBABILITY
    bias: tuple[float, ...] = ()

    def predict(self, logs: Doubles) -> Doubles:
        """Probabilities [N, C] from calibrated and doubted log-probabilities [M, N, C]."""
        w = np.array(self.weights)
        if self.rule is Rule.LOGIT:
            bias = np.array(self.bias) if self.bias else 0.0
            return softmax(np.tensordot(w, logs, 1) + bias)
        mixed: Doubles = np.tensordot(w, np.exp(logs), 1)
        return mixed


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """One way to weight, as cross-validation saw it.

    Attributes:
        log_loss: mean over all rows, each predicted by a fit that had not seen it, in nats.
        excess: how much more that is than the best candidate's.
        excess_standard_error: of ``excess``, from the differences row by row.
        shares: [M] how much of the answer each member makes, with sum 1: the weights of a mixture;
            for stacking the exponents' sizes times the spread of what they multiply.
        fit: from all rows.
    """

    name: str
    log_loss: float
    excess: float
    excess_standard_error: float
    shares: tuple[float, ...]
    fit: Fit


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One member on the labelled rows.

    Attributes:
        temperature: fitted on all rows.
        log_loss: calibrated, cross-validated, in nats.
        calibration_error: ECE over 15 bins as the model answers.
        calibrated_error: the same after calibration, cross-validated.
    """

    name: str
    temperature: float
    log_loss: float
    calibration_error: float
    calibrated_error: float


@dataclasses.dataclass(frozen=True, slots=True)
class WeightsReport:
    """The result of learning weights, as JSON and back.

    Attributes:
        rows: that were labelled.
        members: in the ensemble's order.
        candidates: the simplest first.
        chosen: a candidate's name.
        nested_log_loss: of the whole procedure, the choice included, on rows that neither the
            choice nor the fit had seen; the honest estimate, in nats.
    """

    rows: int
    members: tuple[Member, ...]
    candidates: tuple[Candidate, ...]
    chosen: str
    nested_log_loss: float

    @property
    def doubt(self) -> float:
        """What every member leaves to all classes: 1 in ``rows`` + 2, Laplace's rule."""
        return _doubt(self.rows)

    @property
    def fit(self) -> Fit:
        """The chosen candidate's."""
        return next(each.fit for each in self.candidates if each.name == self.chosen)

    def to_json(self) -> str:
        """The report as a JSON object."""
        return json.dumps(dataclasses.asdict(self), default=lambda rule: rule.value)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what ``to_json`` wrote.

        Raises:
            InvalidArgument: it is not such a report.
        """
        try:
            read: dict[str, Any] = json.loads(text)
            read["members"] = tuple(Member(**each) for each in read["members"])
            read["candidates"] = tuple(
                Candidate(
                    **{**each, "shares": tuple(each["shares"]), "fit": _read_fit(each["fit"])}
                )
                for each in read["candidates"]
            )
            report = cls(**read)
            _ = report.fit
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise InvalidArgument("this is not a report of learned weights") from error
        return report


def _read_fit(read: dict[str, Any]) -> Fit:
    return Fit(tuple(read["weights"]), Rule(read["rule"]), tuple(read["bias"]))


def _mixture(solve: Callable[[Doubles], Doubles]) -> Callable[[Doubles, Labels], Fit]:
    return lambda logs, labels: Fit(tuple(solve(_truth(logs, labels)).tolist()))


def _truth(logs: Doubles, labels: Labels) -> Doubles:
    """What each member gave to the true class [M, N]."""
    return np.maximum(np.exp(logs[:, np.arange(len(labels)), labels]), FLOOR)


def _stacked(logs: Doubles, labels: Labels) -> Fit:
    exponents, bias = stack(logs, labels, mixtures.convex(_truth(logs, labels)))
    return Fit(tuple(exponents.tolist()), Rule.LOGIT, tuple(bias.tolist()))


# The simplest first: one model to run, nothing learned, few members, all members, and a class bias.
CANDIDATES: Final[dict[str, Callable[[Doubles, Labels], Fit]]] = {
    "best_single": _mixture(mixtures.best_single),
    "uniform": _mixture(mixtures.uniform),
    "greedy": _mixture(mixtures.greedy),
    "convex": _mixture(mixtures.convex),
    "stacking": _stacked,
}


def learn_weights(
    logs: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    names: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
    candidate: str | None = None,
) -> WeightsReport:
    """Calibrates the members, fits every candidate, and takes the simplest good one.

    In every fold temperatures and weights are fitted on the other folds. A member that is, after
    calibration, no better than the classes' frequencies (by one standard error) gets no weight.
    The choice is the simplest candidate whose log-loss exceeds the best one's by at most one
    standard error of the difference. The same procedure, choice included, inside an outer
    cross-validation gives ``nested_log_loss``. The result depends on nothing but the arguments.

    Args:
        logs: [M, N, C] log-scores with labels aligned, of rows that no member was trained on;
            memory for about ten copies is needed.
        labels: [N] class indexes.
        names: of the members.
        folds: of both cross-validations; each class is spread evenly over them.
        seed: of the folds.
        candidate: is taken instead of the simplest good one; the others are reported.

    Raises:
        InvalidArgument: shapes, indexes or numbers that do not fit, or fewer rows than two a fold,
            or no such candidate.
    """
    z = np.asarray(logs, np.float64)
    y = np.asarray(labels)
    if z.ndim != 3 or len(names) != len(z) or not len(z) or not np.all(np.isfinite(z)):
        raise InvalidArgument(
            "log-scores must be finite, [members, rows, classes], with a name each"
        )
    inside = y.dtype.kind in "iu" and y.shape == z.shape[1:2]
    if not inside or not np.all((y >= 0) & (y < z.shape[2])):
        raise InvalidArgument("labels must be one class index for each row")
    if candidate is not None and candidate not in CANDIDATES:
        raise InvalidArgument(f"candidates are {', '.join(CANDIDATES)}, not '{candidate}'")
    if len(y) < 2 * folds:
        raise InvalidArgument(f"{folds} folds need at least {2 * folds} labelled rows")
    z, y = log_softmax(z), y.astype(np.intp)
    rng = np.random.default_rng(seed)
    inner = _cross_validate(z, y, folds, rng)
    best = min(inner.losses.values(), key=lambda losses: float(losses.mean()))
    nested = np.zeros(len(y))
    for held_out in _folds(y, folds, rng):
        rest = np.setdiff1d(np.arange(len(y)), held_out)
        chosen = candidate or _simplest(_cross_validate(z[:, rest], y[rest], folds, rng).losses)
        learner = _Learner.on(z[:, rest], y[rest])
        predicted = learner.fit(chosen).predict(learner.calibrate(z[:, held_out]))
        nested[held_out] = log_loss(predicted, y[held_out])
    learner = _Learner.on(z, y)
    fits = {name: learner.fit(name) for name in CANDIDATES}
    return WeightsReport(
        rows=len(y),
        members=tuple(
            Member(
                name,
                float(learner.temperatures[m]),
                float(log_loss(np.exp(inner.calibrated[m]), y).mean()),
                expected_calibration_error(np.exp(z[m]), y),
                expected_calibration_error(np.exp(inner.calibrated[m]), y),
            )
            for m, name in enumerate(names)
        ),
        candidates=tuple(
            Candidate(
                name,
                float(losses.mean()),
                *_excess(losses, best),
                _shares(fits[name], learner.calibrated),
                fits[name],
            )
            for name, losses in inner.losses.items()
        ),
        chosen=candidate or _simplest(inner.losses),
        nested_log_loss=float(nested.mean()),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Learner:
    """Temperatures [M], calibrated log-probabilities [M, N, C] and useful members of some rows."""

    temperatures: Doubles
    calibrated: Doubles
    useful: npt.NDArray[np.bool_]
    labels: Labels

    @classmethod
    def on(cls, z: Doubles, labels: Labels) -> Self:
        temperatures = np.array([fit_temperature(member, labels) for member in z])
        calibrated = _cooled(z, temperatures, len(labels))
        frequencies = np.bincount(labels, minlength=z.shape[2]) / len(labels)
        blind = -np.log(frequencies[labels])
        useful = np.zeros(len(z), bool)
        for m, member in enumerate(calibrated):
            excess, error = _excess(log_loss(np.exp(member), labels), blind)
            useful[m] = excess < -error
        return cls(temperatures, calibrated, useful if useful.any() else ~useful, labels)

    def fit(self, name: str) -> Fit:
        learned = CANDIDATES[name](self.calibrated[self.useful], self.labels)
        weights = np.zeros(len(self.useful))
        weights[self.useful] = learned.weights
        return dataclasses.replace(learned, weights=tuple(weights.tolist()))

    def calibrate(self, z: Doubles) -> Doubles:
        return _cooled(z, self.temperatures, len(self.labels))


@dataclasses.dataclass(frozen=True, slots=True)
class _Validated:
    """Row losses [N] by candidate and calibrated log-probabilities [M, N, C], all held out."""

    losses: dict[str, Doubles]
    calibrated: Doubles


def _cross_validate(z: Doubles, y: Labels, folds: int, rng: np.random.Generator) -> _Validated:
    losses = {name: np.zeros(len(y)) for name in CANDIDATES}
    calibrated = np.zeros_like(z)
    for held_out in _folds(y, folds, rng):
        rest = np.setdiff1d(np.arange(len(y)), held_out)
        learner = _Learner.on(z[:, rest], y[rest])
        calibrated[:, held_out] = test = learner.calibrate(z[:, held_out])
        for name, row_losses in losses.items():
            row_losses[held_out] = log_loss(learner.fit(name).predict(test), y[held_out])
    return _Validated(losses, calibrated)


def _simplest(losses: dict[str, Doubles]) -> str:
    best = min(losses.values(), key=lambda each: float(each.mean()))
    compared = {name: _excess(each, best) for name, each in losses.items()}
    return next(name for name, (excess, error) in compared.items() if excess <= error)


def _excess(losses: Doubles, best: Doubles) -> tuple[float, float]:
    difference = losses - best
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(losses)))


def _shares(fit: Fit, logs: Doubles) -> tuple[float, ...]:
    sizes = np.abs(fit.weights)
    if fit.rule is Rule.LOGIT:
        spread = (logs - logs.mean(axis=2, keepdims=True)).std(axis=(1, 2))
        if np.any(sizes * spread):  # else no member says anything
            sizes = sizes * spread
    return tuple((sizes / sizes.sum()).tolist())


def _cooled(z: Doubles, temperatures: Doubles, rows: int) -> Doubles:
    return doubted(log_softmax(z / temperatures[:, None, None]), _doubt(rows))


def _doubt(rows: int) -> float:
    return 1 / (rows + 2)


def _folds(y: Labels, folds: int, rng: np.random.Generator) -> list[Labels]:
    """Rows of each fold, each class dealt out evenly, in a random order."""
    order = rng.permutation(len(y))
    dealt = order[np.argsort(y[order], kind="stable")]
    return [dealt[start::folds] for start in range(folds)]
