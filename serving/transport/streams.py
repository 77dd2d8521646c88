"""How many streams may be open: each keeps a thread for as long as it lives."""

from __future__ import annotations

import threading
from typing import Final

from crossfade.runtimes.core.errors import ResourceExhausted

MAX_STREAMS: Final = 16


class Streams:
    """Counts the streams that are open, and refuses one too many. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.open = 0

    def __enter__(self) -> None:
        with self._lock:
            if self.open >= MAX_STREAMS:
                raise ResourceExhausted("too many streams are open")
            self.open += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self.open -= 1
