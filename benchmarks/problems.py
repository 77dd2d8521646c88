"""Classification problems and members of unequal worth, all from scikit-learn, nothing fetched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ROWS: Final = 1500  # of the generated problems


@dataclasses.dataclass(frozen=True)
class Problem:
    """Features [N, D] and class indexes [N]."""

    name: str
    features: Array
    labels: Array


def problems() -> Iterator[Problem]:
    """Four real sets, two other forms of the digits, a cut regression, seven generated sets."""
    from sklearn import datasets as d

    for load in (d.load_iris, d.load_wine, d.load_breast_cancer, d.load_digits):
        features, labels = load(return_X_y=True)
        yield Problem(load.__name__.removeprefix("load_"), features, labels)
    pixels, digit = d.load_digits(return_X_y=True)
    yield Problem("digits_parity", pixels, digit % 2)
    coarse = pixels.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
    yield Problem("digits_4x4", coarse, digit)
    features, progression = d.load_diabetes(return_X_y=True)
    thirds = np.digitize(progression, np.quantile(progression, [1 / 3, 2 / 3]))
    yield Problem("diabetes_thirds", features, thirds)

    made: dict[str, Callable[[], tuple[Array, Array]]] = {
        "moons": lambda: d.make_moons(ROWS, noise=0.3, random_state=1),
        "circles": lambda: d.make_circles(ROWS, noise=0.2, factor=0.5, random_state=2),
        "quantiles": lambda: d.make_gaussian_quantiles(
            n_samples=ROWS, n_features=6, n_classes=4, random_state=3
        ),
        "hastie": lambda: d.make_hastie_10_2(ROWS, random_state=4),
        "blobs": lambda: d.make_blobs(
            ROWS, n_features=5, centers=6, cluster_std=5.0, random_state=5
        ),
        "linear_10_classes": lambda: d.make_classification(
            ROWS, 20, n_informative=10, n_classes=10, random_state=6
        ),
        "noisy_labels": lambda: d.make_classification(
            ROWS, 20, n_informative=5, n_classes=3, flip_y=0.2, random_state=7
        ),
    }
    for name, make in made.items():
        features, labels = make()
        yield Problem(name, features, np.unique(labels, return_inverse=True)[1])


def members() -> dict[str, Any]:
    """Unlike classifiers, some overconfident; by name."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "forest": RandomForestClassifier(60, random_state=0),
        "bayes": GaussianNB(),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier(15)),
    }


def held_out(model: Any, problem: Problem, seed: int) -> Array:
    """Probabilities [N, C] of rows that the model was not trained on, over five folds."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    predicted: Array = cross_val_predict(
        model, problem.features, problem.labels, cv=folds, method="predict_proba"
    )
    return predicted
