"""Until when the run that goes on in this thread is wanted.

A session gets tensors and names, and most have no use for more: a library cannot be interrupted.
One that waits for somebody else reads here how long it may. Whoever calls a session sets it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

# A ``time.monotonic()`` value; ``None`` is for ever.
DEADLINE_S: Final[ContextVar[float | None]] = ContextVar("deadline_s", default=None)
