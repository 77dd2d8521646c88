"""Stacks requests into one and cuts the answer apart again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from crossfade.runtimes.core.model import InferRequest, InferResponse, Timings
from crossfade.runtimes.trace import Span

Key = tuple[Any, ...]


def key_of(request: InferRequest) -> Key:
    """Requests with equal keys may be stacked: same signature, outputs, dtypes and row shapes."""
    return (
        request.signature,
        request.outputs,
        *[(name, a.dtype.char, a.shape[1:]) for name, a in sorted(request.inputs.items())],
    )


def first_batch(line: Sequence[tuple[Key | None, int]], max_rows: int) -> list[int]:
    """Who rides in the next run: the first in line, and all with its key that fit.

    Args:
        line: key and rows of each request; requests without a key ride alone.
        max_rows: of one run.

    Returns:
        Their places in the line, the first one's before the others.
    """
    key, rows = line[0]
    batch = [0]
    if key is not None:
        for place in range(1, len(line)):
            if line[place][0] == key and rows + line[place][1] <= max_rows:
                rows += line[place][1]
                batch.append(place)
    return batch


def stack(requests: Sequence[InferRequest]) -> InferRequest:
    """Makes one request of several with equal keys; rows keep the order of the requests.

    Its deadline is the last of theirs: until then somebody wants the answer.
    """
    first = requests[0]
    inputs = {name: np.concatenate([r.inputs[name] for r in requests]) for name in first.inputs}
    deadlines = [request.deadline_s for request in requests]
    return InferRequest(
        inputs,
        first.signature,
        first.outputs,
        None if None in deadlines else max(d for d in deadlines if d is not None),
        rows=sum(request.rows for request in requests),
        trace=None if first.trace is None else _trace(requests),
    )


def _trace(requests: Sequence[InferRequest]) -> Span | None:
    """The trace that another server goes on with: there can be one, so a recorded one."""
    traces = [request.trace for request in requests if request.trace is not None]
    return next((trace for trace in traces if trace.recorded), traces[0])


def unstack(
    response: InferResponse, requests: Sequence[InferRequest], queue_ns: Sequence[int]
) -> list[InferResponse] | None:
    """Cuts a stacked answer into one for each request.

    Returns:
        The answers in the order of the requests, or ``None`` if an output does not have one row
        for each row that went in, so that the model must not be stacked.
    """
    total = sum(request.rows for request in requests)
    if any(not a.ndim or a.shape[0] != total for a in response.outputs.values()):
        return None
    answers: list[InferResponse] = []
    at = 0
    for request, waited_ns in zip(requests, queue_ns, strict=True):
        rows = slice(at, at + request.rows)
        at += request.rows
        timings = Timings(waited_ns, response.timings.infer_ns, total)
        outputs = {name: array[rows] for name, array in response.outputs.items()}
        answers.append(InferResponse(outputs, response.model, timings))
    return answers
