"""Does a search that knows earlier tasks find good values sooner, and does a false friend hurt?

Twelve pairs of tasks: six functions that are moved, turned and scaled from source to target, and
six of scikit-learn's models on other parts of its bundled data. Each source was searched cold for
40 trials; each target is searched for 50, cold and warm, with several seeds. A third source is the
target's own opposite. Nothing is timed.

Bars: trials until the cold search's best of 50 is reached (to 1 % of the range; the number
without this is shown, too), at most 25 in the median; mean regret
after 10 trials at least 30 % lower; with the opposite as the source, the regret after 50 trials
larger by at most 5 % of the range.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from crossfade.runtimes.extras import require
from crossfade.training.tuning.space import Choice, Number, Parameter, Space, Values
from crossfade.training.tuning.transfer import Finished
from crossfade.training.tuning.tuner import OptunaTuner, Suggestion

TRIALS: Final = 50
_SOURCE_TRIALS: Final = 40
_EARLY: Final = 10
_RANGE_SAMPLES: Final = 256
# Of the range from the best known to a random trial's median: what counts as equally good. On
# functions without noise the last digits of a cold search are no goal that anybody has.
_NEAR: Final = 0.01
Objective = Callable[[Values], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """An earlier task and a new one in one space."""

    name: str
    space: Space
    source: Objective
    target: Objective


def _square(**parameters: Parameter) -> Space:
    return Space(parameters)


def _branin(values: Values, shift: float, scale: float) -> float:
    x, y = 15 * float(values["x"]) - 5 + shift, 15 * float(values["y"]) + shift
    bowl = (y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6) ** 2
    return scale * (bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def _training_curve(values: Values, best_rate: float, best_width: float) -> float:
    """Like the loss of a network: a narrow valley of rates, steep where it diverges."""
    rate = math.log10(float(values["rate"]) / best_rate)
    width = math.log2(float(values["width"]) / best_width)
    return 0.3 + 0.4 * rate**2 + 2 * max(rate, 0) ** 3 + 0.03 * width**2 + 0.05 * rate * width


def _hartmann(values: Values, shift: float) -> float:
    a = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
    p = 1e-4 * np.array(
        [[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]]
    )
    x = np.array([float(values[name]) for name in "xyz"]) + shift
    return float(-np.array([1, 1.2, 3, 3.2]) @ np.exp(-(a * (x - p) ** 2).sum(1)))


def _ackley(values: Values, centre: float) -> float:
    x = 4 * (np.array([float(values[name]) for name in "xyzw"]) - centre)
    root = math.exp(-0.2 * math.sqrt(float((x**2).mean())))
    return 20 - 20 * root + math.e - math.exp(float(np.cos(2 * math.pi * x).mean()))


def _optimisers(values: Values, best: str, rate: float) -> float:
    away = math.log10(float(values["rate"]) / rate) + (values["kind"] == "sgd") * -1.0
    decay = math.log10(float(values["decay"]) / 1e-3)
    return 0.3 * away**2 + 0.02 * decay**2 + (0.0 if values["kind"] == best else 0.2)


def _rosenbrock(values: Values, turn: float) -> float:
    x, y = 4 * float(values["x"]) - 2, 4 * float(values["y"]) - 2
    x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return math.log1p((1 - x) ** 2 + 100 * (y - x**2) ** 2)


def made_up() -> list[Pair]:
    """Functions whose target is like their source."""
    unit = Number(0, 1)
    plane = _square(x=unit, y=unit)
    network = _square(rate=Number(1e-5, 1, log=True), width=Number(8, 1024, log=True, integer=True))
    optimisers = _square(
        rate=Number(1e-5, 1, log=True),
        decay=Number(1e-6, 1, log=True),
        kind=Choice(("sgd", "adamw", "lion")),
    )
    part = functools.partial
    return [
        Pair("branin", plane, part(_branin, shift=0, scale=1), part(_branin, shift=0.7, scale=5)),
        Pair(
            *("network", network),
            part(_training_curve, best_rate=1e-3, best_width=128),
            part(_training_curve, best_rate=3e-3, best_width=256),
        ),
        Pair(
            *("hartmann", _square(x=unit, y=unit, z=unit)),
            part(_hartmann, shift=0.0),
            part(_hartmann, shift=0.05),
        ),
        Pair(
            *("ackley", _square(x=unit, y=unit, z=unit, w=unit)),
            part(_ackley, centre=0.4),
            part(_ackley, centre=0.45),
        ),
        Pair(
            *("optimisers", optimisers),
            part(_optimisers, best="adamw", rate=1e-3),
            part(_optimisers, best="adamw", rate=3e-3),
        ),
        Pair("rosenbrock", plane, part(_rosenbrock, turn=0.0), part(_rosenbrock, turn=0.1)),
    ]


def learned() -> list[Pair]:
    """scikit-learn's models, the source on some classes or rows and the target on the others."""
    data = require("sklearn.datasets", "training", "this benchmark")
    digits, cancer, diabetes = (
        getattr(data, f"load_{name}")(return_X_y=True)
        for name in ("digits", "breast_cancer", "diabetes")
    )
    low, high = digits[1] < 5, digits[1] >= 5
    kernel = _square(c=Number(1e-3, 1e3, log=True), gamma=Number(1e-4, 10, log=True))
    linear = _square(c=Number(1e-5, 1e3, log=True), power=Number(0.2, 3))
    ridge = _square(alpha=Number(1e-6, 1e2, log=True), gamma=Number(1e-5, 10, log=True))
    neighbours = _square(count=Number(1, 60, log=True, integer=True), power=Number(0.2, 3))
    return [
        Pair("svm digits", kernel, _svm(*_of(digits, low, 16)), _svm(*_of(digits, high, 16))),
        Pair("svm cancer", kernel, _svm(*_half(cancer, 0)), _svm(*_half(cancer, 1))),
        Pair("svm other data", kernel, _svm(*_of(digits, low, 16)), _svm(*_half(cancer, 1))),
        Pair("logistic", linear, _logistic(*_half(cancer, 0)), _logistic(*_half(cancer, 1))),
        Pair("ridge", ridge, _ridge(*_half(diabetes, 0)), _ridge(*_half(diabetes, 1))),
        Pair(
            *("neighbours", neighbours),
            _neighbours(*_half(diabetes, 0)),
            _neighbours(*_half(diabetes, 1)),
        ),
    ]


def _of(data: Any, rows: Any, scale: float) -> tuple[Any, Any]:
    x, y = data[0][rows][:300], data[1][rows][:300]
    return x / scale, y


def _half(data: Any, which: int) -> tuple[Any, Any]:
    x, y = data
    order = np.random.default_rng(0).permutation(len(x))[which::2]
    return (x[order] - x.mean(0)) / x.std(0), y[order]


def _score(model: Any, x: Any, y: Any, scoring: str) -> float:
    selection = require("sklearn.model_selection", "training", "this benchmark")
    return -float(selection.cross_val_score(model, x, y, cv=3, scoring=scoring).mean())


def _svm(x: Any, y: Any) -> Objective:
    svm = require("sklearn.svm", "training", "this benchmark")
    return lambda v: _score(svm.SVC(C=v["c"], gamma=v["gamma"]), x, y, "accuracy")


def _logistic(x: Any, y: Any) -> Objective:
    linear = require("sklearn.linear_model", "training", "this benchmark")

    def loss(values: Values) -> float:
        bent = np.sign(x) * np.abs(x) ** float(values["power"])
        model = linear.LogisticRegression(C=values["c"], solver="newton-cholesky")
        return _score(model, bent, y, "neg_log_loss")

    return loss


def _ridge(x: Any, y: Any) -> Objective:
    kernel = require("sklearn.kernel_ridge", "training", "this benchmark")
    centred = (y - y.mean()) / y.std()
    return lambda v: _score(
        kernel.KernelRidge(kernel="rbf", alpha=v["alpha"], gamma=v["gamma"]),
        *(x, centred, "neg_mean_squared_error"),
    )


def _neighbours(x: Any, y: Any) -> Objective:
    neighbours = require("sklearn.neighbors", "training", "this benchmark")
    centred = (y - y.mean()) / y.std()

    def loss(values: Values) -> float:
        bent = np.sign(x) * np.abs(x) ** float(values["power"])
        model = neighbours.KNeighborsRegressor(int(values["count"]))
        return _score(model, bent, centred, "neg_mean_squared_error")

    return loss


def run(tuner: OptunaTuner, objective: Objective, trials: int) -> list[float]:
    """The best loss after each trial."""
    best: list[float] = []
    for _ in range(trials):
        suggestion: Suggestion = tuner.suggest()
        loss = objective(suggestion.values)
        tuner.complete(suggestion, loss)
        best.append(min(loss, *best[-1:]) if best else loss)
    return best


def measure(pair: Pair, seed: int) -> dict[str, Any]:
    """One pair with one seed: curves of regret, 0 the best known and 1 a random trial's median."""
    source = OptunaTuner(pair.space, seed=seed + 1000)
    run(source, pair.source, _SOURCE_TRIALS)
    known = [source.finished()]
    opposite = [[Finished(t.values, -pair.target(t.values)) for t in known[0]]]
    random = np.random.default_rng((seed, 7))
    some = [
        pair.target(pair.space.from_unit(random.random(pair.space.width)))
        for _ in range(_RANGE_SAMPLES)
    ]
    curves = {
        "cold": run(OptunaTuner(pair.space, seed=seed), pair.target, TRIALS),
        "warm": run(OptunaTuner(pair.space, seed=seed, sources=known), pair.target, TRIALS),
        "opposite": run(OptunaTuner(pair.space, seed=seed, sources=opposite), pair.target, TRIALS),
        "tpe": _tpe(pair, seed),
    }
    least = min(*(curve[-1] for curve in curves.values()), *some)
    scale = float(np.median(some)) - least or 1.0
    regret = {k: [(v - least) / scale for v in curve] for k, curve in curves.items()}
    reached = _reached(regret["warm"], regret["cold"][-1] + _NEAR)
    exactly = _reached(regret["warm"], regret["cold"][-1])
    own = _reached(regret["cold"], regret["cold"][-1] + _NEAR)
    return {
        "pair": pair.name,
        "seed": seed,
        "reached": reached,
        "exactly": exactly,
        "cold_reached": own,
        "regret": regret,
    }


def _reached(curve: Sequence[float], level: float) -> int:
    return next((i + 1 for i, value in enumerate(curve) if value <= level), TRIALS + 1)


def _tpe(pair: Pair, seed: int) -> list[float]:
    """Optuna's own sampler, cold, for orientation."""
    optuna = require("optuna", "training", "this benchmark")
    distributions = OptunaTuner(pair.space)._distributions
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    best: list[float] = []
    for _ in range(TRIALS):
        asked = study.ask(distributions)
        loss = pair.target(asked.params)
        study.tell(asked, loss)
        best.append(min(loss, *best[-1:]) if best else loss)
    return best


def judge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The three numbers that the bars are of."""
    at = {
        (kind, when): float(np.mean([r["regret"][kind][when - 1] for r in results]))
        for kind in ("cold", "warm", "opposite", "tpe")
        for when in (_EARLY, TRIALS)
    }
    return {
        "pairs": len({r["pair"] for r in results}),
        "seeds": len({r["seed"] for r in results}),
        "trials_to_cold_best_median": float(np.median([r["reached"] for r in results])),
        "trials_to_cold_best_exactly_median": float(np.median([r["exactly"] for r in results])),
        "cold_trials_to_its_own_best_median": float(
            np.median([r["cold_reached"] for r in results])
        ),
        "regret_at_10": {kind: at[kind, _EARLY] for kind in ("cold", "warm", "tpe")},
        "regret_at_50": {kind: at[kind, TRIALS] for kind in ("cold", "warm", "opposite", "tpe")},
        "regret_at_10_lower_by": 1 - at["warm", _EARLY] / at["cold", _EARLY],
        "opposite_worse_by": at["opposite", TRIALS] - at["cold", TRIALS],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each pair and the verdict; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", default="", help="names, separated by commas (all)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    wanted = set(filter(None, options.pairs.split(",")))
    results = []
    for pair in (*made_up(), *learned()):
        if wanted and pair.name not in wanted:
            continue
        of_pair = [measure(pair, seed) for seed in range(options.seeds)]
        results += of_pair
        shown = judge(of_pair)
        sys.stdout.write(
            f"{pair.name:16} reached after {shown['trials_to_cold_best_median']:4.0f};"
            f" regret at 10: cold {shown['regret_at_10']['cold']:.3f},"
            f" warm {shown['regret_at_10']['warm']:.3f}; at 50:"
            f" cold {shown['regret_at_50']['cold']:.3f}, warm {shown['regret_at_50']['warm']:.3f},"
            f" opposite {shown['regret_at_50']['opposite']:.3f},"
            f" TPE {shown['regret_at_50']['tpe']:.3f}\n"
        )
        sys.stdout.flush()
    verdict = judge(results)
    bars = {
        "trials_to_cold_best_median <= 25": verdict["trials_to_cold_best_median"] <= 25,
        "regret_at_10_lower_by >= 0.30": verdict["regret_at_10_lower_by"] >= 0.30,
        "opposite_worse_by <= 0.05": verdict["opposite_worse_by"] <= 0.05,
    }
    sys.stdout.write(json.dumps(verdict, indent=1) + "\n")
    for bar, held in bars.items():
        sys.stdout.write(f"{'held  ' if held else 'MISSED'} {bar}\n")
    if options.json:
        options.json.write_text(json.dumps({**verdict, "bars": bars, "runs": results}))
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
