"""What an answer says in one word, to be compared with another's and with the ground truth."""

from __future__ import annotations

from typing import Final

from crossfade.runtimes.core.model import InferResponse, InferResult, Tensor
from crossfade.serving.fade.records import MAX_ANSWER

_LABELS: Final = "labels"  # the output with class names, where a model postprocesses


def said(result: InferResult) -> str | None:
    """The label of the first class of a request of one row, or its one value; else ``None``.

    Class scores need labels in the model's metadata. The names of the best classes, the surest
    first, or one whole number, truth value or text speak for themselves.
    """
    if not isinstance(result, InferResponse):
        return None
    for name, labels in result.model.labels.items():
        scores = result.outputs.get(name)
        if scores is not None and scores.size == len(labels) and scores.dtype.kind in "fiu":
            return _short(labels[int(scores.argmax())])
    first = result.outputs.get(_LABELS)
    if first is None and len(result.outputs) == 1:
        (first,) = result.outputs.values()
        if first.size != 1:
            return None
    return None if first is None or not first.size else _word(first)


def _word(array: Tensor) -> str | None:
    value = array.flat[0]
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
    elif array.dtype.kind in "biuU":
        text = str(value)
    else:
        return None
    return _short(text)


def _short(text: str) -> str | None:
    return text.replace("\0", "")[:MAX_ANSWER] or None
