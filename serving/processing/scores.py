"""Scores of classes: activations, labels, the best ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossfade.runtimes.core.model import Tensor


def activate(values: Tensor, activation: str | None) -> Tensor:
    """FP32 of the same shape; ``softmax`` is over the last dimension; ``None`` changes nothing."""
    values = values.astype(np.float32)
    if activation == "softmax":
        with np.errstate(invalid="ignore"):  # of infinities NaN comes, as it does from the model
            raised = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
    if activation == "sigmoid":
        return np.asarray(0.5 * (np.tanh(0.5 * values) + 1))  # exp would overflow
    return values


def label_texts(numbers: Tensor, labels: Sequence[bytes], offset: int = 0) -> Tensor:
    """The labels of class numbers; a number that has none is its own label.

    Args:
        numbers: of any shape.
        labels: in index order.
        offset: added to a number to find its label.
    """
    texts = np.empty(numbers.size, np.object_)
    whole = np.nan_to_num(numbers.reshape(-1), nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    for at, number in enumerate(whole.tolist()):
        place = number + offset
        texts[at] = labels[place] if 0 <= place < len(labels) else str(number).encode()
    return texts.reshape(numbers.shape)


def best(
    scores: Tensor, labels: Sequence[bytes], top_k: int | None, threshold: float | None
) -> tuple[Tensor, Tensor]:
    """Labels (BYTES) and scores (FP32) of each row, [rows, classes] or [rows, top_k].

    Without ``top_k`` they are in index order. What scores less than ``threshold`` is an empty
    label and a score of 0, so that all rows stay of one length.
    """
    rows, count = scores.shape
    if top_k is None:
        chosen = np.broadcast_to(np.arange(count), scores.shape)
        values = scores.astype(np.float32)
    else:
        chosen = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        values = np.take_along_axis(scores, chosen, axis=1).astype(np.float32)
    every = label_texts(np.arange(count), labels)
    texts = every[chosen].reshape(rows, -1)
    if threshold is not None:
        below = ~(values >= np.float32(threshold))
        texts[below], values = b"", np.where(below, np.float32(0), values)
    return texts, values
