"""What learned weights and gates are worth on scikit-learn's problems, on rows they never saw.

``worst_loss_vs_best_member`` is the log-loss of the learned weights over that of the best single
member, less 1, on the worst problem; the best member is chosen in hindsight, by the rows of the
test, as it answers or calibrated, whichever is better. It is taken over the problems with a
thousand rows or more: below that the log-loss itself is known to no better than a tenth, and
the same number for those, ``small_worst_loss_vs_best_member``, is mostly chance.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

import numpy as np

from crossfade.benchmarks.problems import Array, Problem, held_out, members, problems
from crossfade.benchmarks.progress import progress
from crossfade.ensemble.calibration import fit_temperature, log_loss
from crossfade.ensemble.combine import Combination, MemberScores
from crossfade.ensemble.gate import CascadeSample, within_harm
from crossfade.ensemble.scores import FLOOR, ScoreKind, doubted, log_softmax, softmax
from crossfade.ensemble.weights import learn_weights

ENOUGH_ROWS: Final = 1000
HARM: Final = 0.005  # half a point of accuracy
DELTA: Final = 0.05


def measure(repetitions: int = 3) -> dict[str, Any]:
    """All numbers; nothing is random but by fixed seeds.

    Args:
        repetitions: of the ten-fold cross-validation on each problem; a hundred splits of the
            cascade's rows do not depend on it.
    """
    large: dict[str, dict[str, Any]] = {}
    small: dict[str, dict[str, Any]] = {}
    for problem in problems():
        progress(f"{problem.name}: {len(problem.labels)} rows")
        found = learned(problem, repetitions)
        (large if len(problem.labels) >= ENOUGH_ROWS else small)[problem.name] = found
        progress(f"{problem.name}: {found}")
    progress("a label that one member lacks")
    lacking = missing_labels()
    progress(f"{lacking}; a cascade on the digits")
    return {
        "problems": len(large),
        "worst_loss_vs_best_member": max(each["vs_best_member"] for each in large.values()),
        "mean_loss_vs_best_member": mean(large, "vs_best_member"),
        "mean_loss_vs_uniform": mean(large, "vs_uniform"),
        "useless_member_weight": max(
            each["useless_weight"] for each in (*large.values(), *small.values())
        ),
        "small_problems": len(small),
        "small_worst_loss_vs_best_member": max(each["vs_best_member"] for each in small.values()),
        "small_mean_loss_vs_best_member": mean(small, "vs_best_member"),
        "small_mean_loss_vs_uniform": mean(small, "vs_uniform"),
        **cascade(),
        **lacking,
        "by_problem": {**large, **small},
    }


def mean(found: dict[str, dict[str, Any]], key: str) -> float:
    """Over the problems."""
    return statistics.fmean(each[key] for each in found.values())


def learned(problem: Problem, repetitions: int) -> dict[str, Any]:
    """The learned weights on rows that they had not seen, over ten folds, again and again."""
    models = members()
    z = np.log(np.maximum([held_out(model, problem, 0) for model in models.values()], FLOOR))
    y = problem.labels
    names = list(models)
    losses: dict[str, list[Array]] = {}
    chosen = []
    for repetition in range(repetitions):
        rng = np.random.default_rng(repetition)
        for rows in np.array_split(rng.permutation(len(y)), 10):
            rest = np.setdiff1d(np.arange(len(y)), rows)
            report = learn_weights(z[:, rest], y[rest], names, seed=repetition)
            chosen.append(report.chosen)
            temperatures = np.array([member.temperature for member in report.members])
            cool = log_softmax(z[:, rows] / temperatures[:, None, None])
            predicted = {
                "learned": report.fit.predict(doubted(cool, report.doubt)),
                "uniform": np.exp(cool).mean(axis=0),
                **{
                    f"{name} raw": softmax(each)
                    for name, each in zip(names, z[:, rows], strict=True)
                },
                **{
                    f"{name} calibrated": np.exp(each)
                    for name, each in zip(names, cool, strict=True)
                },
            }
            for name, p in predicted.items():
                losses.setdefault(name, []).append(log_loss(p, y[rows]))
    loss = {name: float(np.concatenate(parts).mean()) for name, parts in losses.items()}
    best = min(loss[name] for name in loss if name not in ("learned", "uniform"))
    return {
        "loss": round(loss["learned"], 4),
        "vs_best_member": round(loss["learned"] / best - 1, 4),
        "vs_uniform": round(loss["learned"] / loss["uniform"] - 1, 4),
        "useless_weight": useless_weight(z, y),
        "chosen": {name: chosen.count(name) for name in sorted(set(chosen))},
    }


def useless_weight(z: Array, y: Array) -> float:
    """The largest share of a planted member: random scores, or good ones of other rows."""
    rng = np.random.default_rng(0)
    random_scores = np.log(rng.dirichlet(np.ones(z.shape[2]), z.shape[1]))
    shares = []
    for planted in (random_scores, z[0, rng.permutation(z.shape[1])]):
        names = [str(number) for number in range(len(z) + 1)]
        scores = np.concatenate([z, np.maximum(planted, np.log(FLOOR))[None]])
        report = learn_weights(scores, y, names)
        shares.append(next(c.shares[-1] for c in report.candidates if c.name == report.chosen))
    return max(shares)


def cascade(splits: int = 100) -> dict[str, float]:
    """A linear model before a support vector machine, on the digits; costs in multiplications.

    Each split calibrates on 300 rows, solves the threshold on 900, and tests on the other 597.
    """
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    problem = Problem("digits", *load_digits(return_X_y=True))
    y = problem.labels
    machine = make_pipeline(StandardScaler(), SVC(C=10)).fit(problem.features, y)
    features, classes = problem.features.shape[1], len(np.unique(y))
    costs = (features * classes, machine[-1].support_vectors_.size)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    z = [
        np.log(np.maximum(scores, FLOOR))
        for scores in (held_out(linear, problem, 0), held_out_decisions(problem))
    ]
    cuts, drops, harms = [], [], []
    for split in range(splits):
        cool, solve, test = np.split(np.random.default_rng(split).permutation(len(y)), [300, 1200])
        temperatures = [fit_temperature(scores[cool], y[cool]) for scores in z]
        stages = [softmax(scores / t) for scores, t in zip(z, temperatures, strict=True)]
        gate = within_harm(
            CascadeSample.of([stage[solve] for stage in stages], y[solve], costs), HARM, DELTA
        )
        seen = CascadeSample.of([stage[test] for stage in stages], y[test], costs)
        at = np.inf if gate.threshold is None else gate.threshold
        reached = np.array(seen.reached(at)) / seen.rows
        right = seen.right[seen.stage_of(at), np.arange(seen.rows)]
        cuts.append(1 - float(reached @ costs) / costs[-1])
        drops.append(float(seen.right[-1].mean() - right.mean()))
        harms.append(seen.harmed(at) / seen.rows)
    return {
        "cascade_cost_cut": statistics.fmean(cuts),
        "cascade_accuracy_drop": statistics.fmean(drops),
        "cascade_harm": statistics.fmean(harms),
        "cascade_splits_within_half_a_point": statistics.fmean(drop <= HARM for drop in drops),
    }


def held_out_decisions(problem: Problem) -> Array:
    """Probabilities from the machine's decision values, by softmax; the temperature is fitted."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    machine = make_pipeline(StandardScaler(), SVC(C=10))
    decisions = cross_val_predict(
        machine, problem.features, problem.labels, cv=folds, method="decision_function"
    )
    return softmax(decisions)


def missing_labels() -> dict[str, float]:
    """Log-loss on the digits where one of two equal members never learned two of the labels.

    Three rules: the member takes the others' opinion (what ``Combination`` does), its weight goes
    to the others for those labels, its probability for them is zero.
    """
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_digits(return_X_y=True)
    lacking = (3, 8)
    known = [digit for digit in range(10) if digit not in lacking]
    losses: dict[str, list[Array]] = {"fill_in": [], "renormalise": [], "zero": []}
    names = tuple(str(digit) for digit in range(10))
    pool = Combination(
        (
            MemberScores(ScoreKind.PROBABILITIES, names),
            MemberScores(ScoreKind.PROBABILITIES, tuple(names[digit] for digit in known)),
        ),
        (0.5, 0.5),
    )
    for test in np.array_split(np.random.default_rng(0).permutation(len(labels)), 5):
        train = np.setdiff1d(np.arange(len(labels)), test)
        some = train[~np.isin(labels[train], lacking)]
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        whole = (
            members()["forest"].fit(features[train], labels[train]).predict_proba(features[test])
        )
        part = model.fit(features[some], labels[some]).predict_proba(features[test])
        spread = np.zeros_like(whole)
        spread[:, known] = part
        renormalised = np.where(np.isin(np.arange(10), lacking), whole, (whole + spread) / 2)
        renormalised /= renormalised.sum(axis=1, keepdims=True)
        for name, p in {
            "fill_in": pool([whole, part]),
            "renormalise": renormalised,
            "zero": (whole + spread) / 2,
        }.items():
            losses[name].append(log_loss(p, labels[test]))
    return {
        f"missing_label_loss_{name}": float(np.concatenate(parts).mean())
        for name, parts in losses.items()
    }
