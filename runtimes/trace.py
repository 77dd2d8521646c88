"""What is recorded of a request's way, and how a session that asks other servers finds it."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from crossfade.runtimes.core.model import InferResult


class Span(Protocol):
    """A stretch of a request's way in a distributed trace. Thread-safe; nothing of it raises."""

    @property
    def recorded(self) -> bool:
        """False where the trace was not chosen; what is asked of it then does nothing."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """By which another server goes on with the trace: ``traceparent``, ``tracestate``."""
        ...

    def child(self, name: str) -> Span:
        """Begins a stretch within this one."""
        ...

    def end(self, result: InferResult | None) -> None:
        """Ends it, once, with what came of it: a code and timings are kept, no tensors."""
        ...


# Of the run that this thread is about to make; set by whoever calls ``Session.run``.
of_run: Final[contextvars.ContextVar[Span | None]] = contextvars.ContextVar("trace", default=None)


def headers() -> Sequence[tuple[str, str]]:
    """What to send along, so that another server goes on with the trace."""
    span = of_run.get()
    return () if span is None else span.headers
