"""A span for each request that a member is asked, where requests are traced."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from crossfade.runtimes.core.model import InferRequest, InferResult


def begun(requests: Sequence[InferRequest], member: str) -> Sequence[InferRequest]:
    """The requests as the member is asked them: those in a trace with a span of their own.

    Returns:
        ``requests`` itself where none is traced; else ``ended`` is due.
    """
    if all(request.trace is None for request in requests):
        return requests
    return [
        dataclasses.replace(request, trace=request.trace.child(f"member {member}"))
        if request.trace is not None and request.trace.recorded
        else request
        for request in requests
    ]


def ended(asked: Sequence[InferRequest], results: Sequence[InferResult]) -> None:
    """Ends what ``begun`` began, with what the member answered."""
    for request, result in zip(asked, results, strict=True):
        if request.trace is not None and request.trace.recorded:
            request.trace.end(result)
