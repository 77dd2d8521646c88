"""Collects the body of a request within its limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

import h11

from crossfade.serving.transport.http_answer import Refused
from crossfade.serving.transport.http_head import MALFORMED
from crossfade.serving.transport.http_limits import HttpLimits

# Chunks cost 10 us each, whatever they hold. A client that streams line by line is served; one
# that sends millions of single bytes is not.
_FREE_CHUNKS: Final = 4096
_MEAN_CHUNK_BYTES: Final = 512
# Pieces are gathered up to this size: a piece for each byte received would take 60 times as much.
_PIECE_BYTES: Final = 64 * 1024
# No body is that long: a chunk size that wraps around in other servers.
_ABSURD_BYTES: Final = 2**62


class BodyReader:
    """The body of one request on its way in.

    Attributes:
        size: bytes received so far.
    """

    def __init__(self, parser: h11.Connection, limits: HttpLimits) -> None:
        self._parser = parser
        self._limits = limits
        self._pieces: list[bytearray] = []
        self._chunks = 0
        self.size = 0

    def feed(self, data: memoryview | bytearray) -> bool:
        """Takes ``data``, which may be overwritten afterwards; returns whether the body is whole.

        Raises:
            Refused: too large (413), or malformed or in too many chunks (400).
        """
        self._parser.receive_data(cast(bytes, data))  # it copies any bytes-like object
        try:
            for event in self._events():
                if isinstance(event, h11.EndOfMessage):
                    return True
                self._add(event)
        except h11.RemoteProtocolError:
            raise Refused(400, MALFORMED) from None
        self._check_chunk_announced()
        return False

    def take(self) -> tuple[bytes, bytes]:
        """Returns the body and what came after it."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body, self._parser.trailing_data[0]

    def _events(self) -> Iterator[h11.Data | h11.EndOfMessage]:
        while isinstance(event := self._parser.next_event(), h11.Data | h11.EndOfMessage):
            yield event

    def _add(self, event: h11.Data) -> None:
        self.size += len(event.data)
        self._chunks += event.chunk_start
        if self.size > self._limits.body_bytes:
            raise self.too_large(self._limits)
        if self._chunks > _FREE_CHUNKS + self.size // _MEAN_CHUNK_BYTES:
            raise Refused(400, "the body comes in too many small chunks")
        piece = cast(bytearray, event.data)  # h11 declares bytes, and hands out its own bytearray
        if self._pieces and len(self._pieces[-1]) + len(piece) <= _PIECE_BYTES:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)

    def _check_chunk_announced(self) -> None:
        # h11 has no public name for the size of a chunk of which nothing has come yet. Without
        # it (h11 may rename it), a client that announces 2^64 bytes is told 408 instead of 400.
        announced = getattr(getattr(self._parser, "_reader", None), "_bytes_in_chunk", 0)
        if announced > _ABSURD_BYTES:
            raise Refused(400, MALFORMED)
        if self.size + announced > self._limits.body_bytes:
            raise self.too_large(self._limits)

    @staticmethod
    def too_large(limits: HttpLimits) -> Refused:
        """What a client is told whose body is, or will be, over the limit."""
        return Refused(413, f"the body is larger than {limits.body_bytes} bytes")
