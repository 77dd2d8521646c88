"""What the connections of one HTTP host have in common."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Final, Protocol

from crossfade.serving.transport.http_limits import HttpLimits
from crossfade.serving.transport.http_router import HttpRouter
from crossfade.serving.transport.http_workers import Workers

_RECEIVE_BYTES: Final = 256 * 1024


class Connection(Protocol):
    """A connection, as its host sees it."""

    def check(self, now_s: float) -> None:
        """Ends the connection if the peer has kept it waiting for too long."""
        ...

    def drain(self) -> None:
        """Closes the connection if no request has begun on it; others close with their answer."""
        ...

    def abort(self) -> None:
        """Closes the connection now, whatever goes on."""
        ...


def _receive_buffer() -> memoryview:
    return memoryview(bytearray(_RECEIVE_BYTES))


@dataclasses.dataclass(slots=True, eq=False)
class Shared:
    """Touched on the loop's thread only.

    Attributes:
        buffer: where all connections receive, one after the other.
        buffered_bytes: bodies of the requests that are not answered yet.
        draining: whether the host is stopping.
        empty: set when the last connection is gone.
    """

    limits: HttpLimits
    router: HttpRouter
    workers: Workers
    buffer: memoryview = dataclasses.field(default_factory=_receive_buffer)
    connections: set[Connection] = dataclasses.field(default_factory=set)
    buffered_bytes: int = 0
    draining: bool = False
    empty: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
