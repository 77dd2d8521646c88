"""The trace of the run that this thread is about to make, for a session that asks other servers."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import Final

from crossfade.runtimes.core.model import Span

# Set by whoever calls ``Session.run``.
of_run: Final[contextvars.ContextVar[Span | None]] = contextvars.ContextVar("trace", default=None)


def headers() -> Sequence[tuple[str, str]]:
    """What to send along, so that another server goes on with the trace."""
    span = of_run.get()
    return () if span is None else span.headers
