"""Two classifiers of real digits as ONNX models, with their labels in different orders."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from tests.runtimes.onnx_models import FLOAT, model, node, value, weight

LABELS = [f"digit {number}" for number in range(10)]
_TRAINED = 500


def rows() -> tuple[np.ndarray, np.ndarray]:
    """All rows [N, 64] and their classes; the models are trained on the first 500."""
    x, y = load_digits(return_X_y=True)
    return x.astype(np.float32) / 16, y


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Rows [1297, 64] that neither model was trained on, and their classes."""
    x, y = rows()
    return x[_TRAINED:], y[_TRAINED:]


def write(root: Path) -> None:
    """``coarse`` sees 4 x 4 points and gives probabilities, ``fine`` 8 x 8 and gives logits."""
    x, y = (array[:_TRAINED] for array in rows())
    pooled = np.zeros((64, 16), np.float32)  # means of 2 x 2 points
    for point in range(64):
        pooled[point, point // 16 * 4 + point % 8 // 2] = 0.25
    linear = LogisticRegression(C=30, max_iter=5000).fit(x @ pooled, y)
    _write(
        root / "coarse",
        [
            node("MatMul", "x w", "m"),
            node("Add", "m b", "logits"),
            node("Softmax", "logits", "scores", axis=-1),
        ],
        {"w": pooled @ linear.coef_.T, "b": linear.intercept_},
        LABELS,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged, nor need it
        deep = MLPClassifier(64, max_iter=60, random_state=0).fit(x, y)
    (v, w), (c, b) = deep.coefs_, deep.intercepts_
    _write(
        root / "fine",
        [
            node("MatMul", "x v", "g"),
            node("Add", "g c", "h"),
            node("Relu", "h", "r"),
            node("MatMul", "r w", "m"),
            node("Add", "m b", "scores"),
        ],
        {"v": v, "c": c, "w": w[:, ::-1], "b": b[::-1]},
        LABELS[::-1],
    )


def _write(
    folder: Path, nodes: Sequence[object], weights: dict[str, np.ndarray], labels: Sequence[str]
) -> None:
    (folder / "1").mkdir(parents=True)
    graph = model(
        nodes,
        [value("x", FLOAT, ["n", 64])],
        [value("scores", FLOAT, ["n", 10])],
        [weight(name, array.astype(np.float32)) for name, array in weights.items()],
    )
    (folder / "1" / "model.onnx").write_bytes(graph)
    (folder / "labels.txt").write_text("\n".join(labels))
