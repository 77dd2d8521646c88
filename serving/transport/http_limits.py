"""What one HTTP client may cost."""

from __future__ import annotations

import dataclasses
from typing import Final

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


@dataclasses.dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one HTTP host; whatever is over one is refused, with the status in brackets.

    Attributes:
        header_bytes: request line and headers together (431). As much is read ahead of a client
            that pipelines.
        header_count: header lines (431).
        request_line_bytes: method, path, query and version (414).
        body_bytes: one body, before and after it is decompressed (413).
        buffered_bytes: the bodies of all requests of this host that are not answered yet (503).
        header_timeout_s: from a new connection to its first byte, and from the first byte of a
            head to its last one (408).
        body_timeout_s: how long a body may take (408) unless it is large and keeps coming …
        body_bytes_per_s: … at this rate or more in each period of ``body_timeout_s``, so that a
            large upload over a slow line gets through.
        write_timeout_s: how long a client may leave 256 KiB of its answer waiting.
        idle_timeout_s: how long a connection is kept open between two requests.
        request_timeout_s: from a complete request to its answer (504); ``None`` is no limit.
        max_connections: connections open at the same time; the next one is told 503.
        max_waiting: requests of one kind of access that wait for a thread (429).
    """

    header_bytes: int = 64 * _KIB
    header_count: int = 256
    request_line_bytes: int = 8 * _KIB
    body_bytes: int = 64 * _MIB
    buffered_bytes: int = 1024 * _MIB
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    body_bytes_per_s: int = 16 * _KIB
    write_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    request_timeout_s: float | None = None
    max_connections: int = 1024
    max_waiting: int = 256
