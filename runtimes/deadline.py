"""When nobody will want the answer of the run that this thread is about to make.

A library cannot be interrupted, so most sessions do not ask; one that only waits for another
process can stop waiting.
"""

from __future__ import annotations

import contextvars
from typing import Final

# ``time.monotonic()`` value, or ``None``; set by whoever calls ``Session.run``.
of_run: Final[contextvars.ContextVar[float | None]] = contextvars.ContextVar("of_run", default=None)
