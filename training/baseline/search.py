"""Finds members by cross-validation: tuned boosted trees, a linear model, and how to mix them."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.extras import require
from crossfade.training.baseline.jobs import Progress, Report
from crossfade.training.baseline.members import Linear, Member, Trees, linked
from crossfade.training.baseline.metrics import Task
from crossfade.training.transforms import fitting
from crossfade.training.transforms.fitting import Options
from crossfade.training.transforms.plan import PlannedColumn
from crossfade.training.transforms.table import Table

Array = npt.NDArray[Any]
FOLDS: Final = 5
_FLOOR: Final = 1e-15
# Trees are tuned at the first rate and trained at the second, which takes longer and is better.
_SEARCH_RATE: Final = 0.1
_FINAL_RATE: Final = 0.03
_MAX_ROUNDS: Final = 4000
_PATIENCE: Final = 50
_PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
# The share of the budget that the last training at the small rate gets.
_FINAL_SHARE: Final = 0.4
_MAX_TRIALS: Final = 200
_PLAIN: Final = {
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.9,
    "lambda_l1": 1e-3,
    "lambda_l2": 1.0,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What is to be learned.

    Attributes:
        task: regression or classification.
        objective: what is minimised: ``rmse``, ``mae``, ``log_loss`` or ``auc`` (1 - the area).
        table: training rows.
        columns: what features are made of.
        target: float64 [rows], or class places, int64.
        classes: how many; 0 of a regression.
        seed: of folds and of all that is drawn.
        threads: that LightGBM may use.
    """

    task: Task
    objective: str
    table: Table
    columns: Sequence[PlannedColumn]
    target: Array
    classes: int
    seed: int
    threads: int = 1

    @property
    def encoded(self) -> Array:
        """The target for encodings: values, or one-hot without the first class."""
        if self.task == "regression":
            return self.target
        return np.asarray(self.target[:, None] == np.arange(1, self.classes), np.float64)

    def loss(self, predictions: Array) -> float:
        """The objective of predictions as ``linked`` gives them."""
        return loss(self.objective, self.target, predictions)

    def folds(self) -> list[tuple[Array, Array]]:
        """Indices to learn from and to measure on; each class is in each fold alike."""
        from sklearn.model_selection import KFold, StratifiedKFold

        rows = len(self.target)
        if self.task == "regression":
            return list(
                KFold(min(FOLDS, rows), shuffle=True, random_state=self.seed).split(self.target)
            )
        count = max(2, min(FOLDS, int(np.bincount(self.target).min())))
        with warnings.catch_warnings():  # a class with one row
            warnings.simplefilter("ignore", UserWarning)
            made = StratifiedKFold(count, shuffle=True, random_state=self.seed)
            return list(made.split(self.target, self.target))


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a search gives.

    Attributes:
        members: with their weights, which add up to 1.
        losses: of each candidate by cross-validation, by name; of the mix as ``mix``.
        parameters: of the trees.
        trials: settings of trees that were tried.
    """

    members: Sequence[tuple[float, Member]]
    losses: dict[str, float]
    parameters: dict[str, Any]
    trials: int


def loss(objective: str, target: Array, predictions: Array) -> float:
    """The value of an objective; lower is better."""
    if objective == "rmse":
        return float(np.sqrt(((predictions[:, 0] - target) ** 2).mean()))
    if objective == "mae":
        return float(np.abs(predictions[:, 0] - target).mean())
    if objective == "log_loss":
        chosen = predictions[np.arange(len(target)), target]
        return float(-np.log(np.maximum(chosen, _FLOOR)).mean())
    from sklearn.metrics import roc_auc_score

    classes = range(1, predictions.shape[1]) if predictions.shape[1] == 2 else np.unique(target)
    areas = [roc_auc_score(target == c, predictions[:, c]) for c in classes]
    return float(1 - np.mean(areas))


def search(problem: Problem, budget_s: float, report: Report) -> Found:
    """Trains members within about a time; at least one setting of each kind is always tried.

    Raises:
        MissingExtra: LightGBM, Optuna or scikit-learn is not installed.
    """
    for library in ("lightgbm", "optuna", "sklearn"):
        require(library, "training", "a baseline")
    started = time.monotonic()

    def used() -> float:
        return min(1.0, (time.monotonic() - started) / budget_s)

    folds = problem.folds()
    linear, of_linear = _linear(problem, folds)
    losses = {"linear": problem.loss(of_linear)}
    report(Progress("linear model", used(), losses["linear"]))
    trees, of_trees, parameters, trials = _trees(problem, folds, used, report)
    losses["trees"] = problem.loss(of_trees)
    weight = min(
        np.linspace(0, 1, 21).tolist(),
        key=lambda w: (round(problem.loss(w * of_trees + (1 - w) * of_linear), 12), -w),
    )
    losses["mix"] = problem.loss(weight * of_trees + (1 - weight) * of_linear)
    members: list[tuple[float, Member]] = [(weight, trees), (1 - weight, linear)]
    report(Progress("done", 1.0, losses["mix"]))
    return Found([(w, m) for w, m in members if w > 0], losses, parameters, trials)


def _linear(problem: Problem, folds: Sequence[tuple[Array, Array]]) -> tuple[Linear, Array]:
    """A linear model with the best penalty, and its predictions out of fold."""
    options = Options(style="linear")
    spec, dense, _ = fitting.fit_transform(
        problem.table, problem.columns, problem.encoded, options, seed=problem.seed
    )
    features = dense.astype(np.float64)

    def out_of_fold(penalty: float) -> Array:
        found = np.zeros((len(features), max(1, problem.classes)))
        for learned, held in folds:
            model = _fit_linear(problem, features[learned], problem.target[learned], penalty)
            found[held] = linked(problem.task, features[held] @ model[0] + model[1])
        return found

    tried = [(out_of_fold(penalty), penalty) for penalty in _PENALTIES]
    best, penalty = min(tried, key=lambda each: problem.loss(each[0]))
    # What is served makes its features of the table, without folds.
    weights, bias = _fit_linear(problem, features, problem.target, penalty)
    ends = features.min(axis=0), features.max(axis=0)
    return Linear(spec, weights, bias, ends), best


def _fit_linear(
    problem: Problem, features: Array, target: Array, penalty: float
) -> tuple[Array, Array]:
    """Weights [features, outputs] and bias [outputs]."""
    from sklearn.linear_model import LogisticRegression, Ridge

    with warnings.catch_warnings():  # not converged: the loss says what that is worth
        warnings.simplefilter("ignore")
        if problem.task == "regression":
            ridge = Ridge(alpha=penalty).fit(features, target)
            return ridge.coef_.reshape(-1, 1), np.array([ridge.intercept_], np.float64)
        model = LogisticRegression(C=1 / penalty, max_iter=300).fit(features, target)
    weights, bias = model.coef_.T, model.intercept_
    if problem.classes == 2:
        return weights, bias
    if len(model.classes_) == 2:  # a fold without one of three classes
        weights, bias = np.hstack([-weights, weights]) / 2, np.hstack([-bias, bias]) / 2
    # A class that a fold does not have is not expected there.
    wide = np.zeros((len(weights), problem.classes))
    wide_bias = np.full(problem.classes, -30.0)
    wide[:, model.classes_], wide_bias[model.classes_] = weights, bias
    return wide, wide_bias


def _trees(
    problem: Problem,
    folds: Sequence[tuple[Array, Array]],
    used: Callable[[], float],
    report: Report,
) -> tuple[Trees, Array, dict[str, Any], int]:
    """Trees with the best parameters found in time, and their predictions out of fold."""
    import optuna

    spec, dense, _ = fitting.fit_transform(
        problem.table, problem.columns, problem.encoded, Options(style="trees"), seed=problem.seed
    )
    features = dense.astype(np.float64)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=problem.seed, multivariate=True)
    study = optuna.create_study(
        sampler=sampler, pruner=optuna.pruners.MedianPruner(n_startup_trials=4)
    )
    study.enqueue_trial(_PLAIN)

    def objective(trial: Any) -> float:
        parameters = {
            "num_leaves": trial.suggest_int("num_leaves", 4, 256, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 2, 128, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "lambda_l1": trial.suggest_float("lambda_l1", 1e-4, 100.0, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-4, 100.0, log=True),
        }
        losses: list[float] = []
        for step, (learned, held) in enumerate(folds):
            booster = _boost(
                problem, features, learned, held, parameters=parameters, rate=_SEARCH_RATE
            )
            found = linked(problem.task, _raw(booster, features[held]))
            losses.append(loss(problem.objective, problem.target[held], found))
            trial.report(float(np.mean(losses)), step)
            if trial.should_prune():
                raise optuna.TrialPruned
            if len(study.trials) > 1 and used() > 1 - _FINAL_SHARE:
                study.stop()
                raise optuna.TrialPruned
        return float(np.mean(losses))

    def told(study: Any, _: Any) -> None:
        report(Progress(f"trees, setting {len(study.trials)}", used(), study.best_value))
        if used() > 1 - _FINAL_SHARE:
            study.stop()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(objective, n_trials=_MAX_TRIALS, callbacks=[told])
    boosters, found = [], np.zeros((len(features), max(1, problem.classes)))
    for learned, held in folds:
        booster = _boost(
            problem, features, learned, held, parameters=study.best_params, rate=_FINAL_RATE
        )
        found[held] = linked(problem.task, _raw(booster, features[held]))
        boosters.append(booster)
        report(Progress(f"trees, fold {len(boosters)} of {len(folds)}", used(), study.best_value))
    return Trees(spec, boosters), found, dict(study.best_params), len(study.trials)


def _boost(
    problem: Problem,
    features: Array,
    learned: Array,
    held: Array,
    *,
    parameters: dict[str, Any],
    rate: float,
) -> Any:
    import lightgbm

    if problem.task == "regression":
        objective = {"objective": "l1" if problem.objective == "mae" else "l2"}
    elif problem.classes == 2:
        objective = {"objective": "binary"}
    else:
        objective = {"objective": "multiclass", "num_class": problem.classes}  # type: ignore[dict-item]  # LightGBM's parameters
    settings = {
        **parameters,
        **objective,
        "learning_rate": rate,
        "bagging_freq": 1,
        "seed": problem.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": problem.threads,
        "verbose": -1,
    }
    train = lightgbm.Dataset(features[learned], problem.target[learned])
    validation = lightgbm.Dataset(features[held], problem.target[held], reference=train)
    patience = _PATIENCE if rate == _SEARCH_RATE else 2 * _PATIENCE
    stop = lightgbm.early_stopping(patience, verbose=False)
    booster = lightgbm.train(settings, train, _MAX_ROUNDS, [validation], callbacks=[stop])
    # Only the best rounds are kept, in what is predicted and in what is written.
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _raw(booster: Any, features: Array) -> Array:
    found = booster.predict(features, raw_score=True, num_threads=1)
    return np.asarray(found).reshape(len(features), -1)
