"""The classification extension: the best classes of an output as ``score:index:label``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import InferResponse, Tensor


def classify(scores: Tensor, count: int, labels: Sequence[str], batched: bool) -> Tensor:
    """Picks the ``count`` highest scores (all of them, if there are fewer).

    Args:
        scores: [batch, …] where ``batched``, else […]; numeric.
        count: classes wanted, positive.
        labels: class names in index order; may be shorter than the scores.
        batched: dimension 0 is the batch.

    Returns:
        BYTES of shape [batch, k] where ``batched``, else [k]; best first, ties by index.

    Raises:
        InvalidArgument: the output is not numeric.
    """
    if scores.dtype == np.object_:
        raise InvalidArgument("classification needs a numeric output")
    rows = scores.reshape((scores.shape[0], -1) if batched else (1, -1))  # [B, N]
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]  # [B, k]
    picked = np.empty(best.shape, dtype=np.object_)
    for row in range(best.shape[0]):
        for place, index in enumerate(best[row].tolist()):
            label = f":{labels[index]}" if index < len(labels) else ""
            picked[row, place] = f"{_number(rows[row, index])}:{index}{label}".encode()
    return picked if batched else picked[0]


def apply(response: InferResponse, wanted: Sequence[tuple[str, int]]) -> InferResponse:
    """Replaces each output named in ``wanted`` by its best classes.

    Of a model with several signatures, the default one is what this protocol calls.
    """
    metadata = response.model
    batched = metadata.signatures[metadata.default_signature].batched
    outputs = dict(response.outputs)
    for name, count in wanted:
        outputs[name] = classify(outputs[name], count, metadata.labels.get(name, ()), batched)
    return dataclasses.replace(response, outputs=outputs)


def _number(score: np.generic) -> str:
    return f"{score:f}" if score.dtype.kind == "f" else str(score)
