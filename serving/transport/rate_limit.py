"""So many requests a second for each caller: a token bucket each, in bounded memory."""

from __future__ import annotations

import collections
import threading
import time
from typing import Final

from crossfade.runtimes.core.errors import ResourceExhausted

# Callers that are told apart. Of more, the one that has been silent longest starts afresh.
_MOST_CALLERS: Final = 10_000


class RateLimit:
    """Lets a caller make ``per_second`` requests, and up to one second's worth at once.

    Thread-safe.
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._burst = max(1.0, per_second)
        self._lock = threading.Lock()
        # caller: requests it may still make, and when that was true
        self._callers: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def take(self, caller: str) -> None:
        """Counts one request.

        Raises:
            ResourceExhausted: the caller has had its share; says when to try again.
        """
        now_s = time.monotonic()
        with self._lock:
            left, then_s = self._callers.pop(caller, (self._burst, now_s))
            left = min(self._burst, left + (now_s - then_s) * self._per_second)
            allowed = left >= 1
            self._callers[caller] = (left - 1 if allowed else left, now_s)
            if len(self._callers) > _MOST_CALLERS:
                self._callers.popitem(last=False)
        if not allowed:
            raise ResourceExhausted(
                f"more than {self._per_second:g} requests a second",
                retry_after_s=(1 - left) / self._per_second,
            )
