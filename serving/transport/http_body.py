"""Collects the body of a request within its limits."""

from __future__ import annotations

import abc
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


def too_large(limits: HttpLimits) -> Refused:
    """What a client is told whose body is, or will be, over the limit."""
    return Refused(413, f"the body is larger than {limits.body_bytes} bytes")


class BodyReader(abc.ABC):
    """The body of one request on its way in.

    Attributes:
        size: bytes received so far.
        rest: what came after the body, once it is whole.
    """

    def __init__(self) -> None:
        self._pieces: list[bytearray] = []
        self.size = 0
        self.rest = b""

    @abc.abstractmethod
    def feed(self, data: memoryview) -> bool:
        """Takes ``data``, which may be overwritten afterwards; returns whether the body is whole.

        Raises:
            Refused: too large (413), or malformed or in too many chunks (400).
        """

    def take(self) -> bytes:
        """Returns the body, once."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def _gather(self, data: memoryview | bytes) -> None:
        self.size += len(data)
        if self._pieces and len(self._pieces[-1]) + len(data) <= _PIECE_BYTES:
            self._pieces[-1] += data
        else:
            self._pieces.append(bytearray(data))


class LengthReader(BodyReader):
    """A body of announced length."""

    def __init__(self, length: int, limits: HttpLimits) -> None:
        super().__init__()
        if length > limits.body_bytes:
            raise too_large(limits)
        self._length = length

    def feed(self, data: memoryview) -> bool:
        """Takes ``data`` up to the length announced."""
        missing = self._length - self.size
        self._gather(data[:missing])
        self.rest = bytes(data[missing:])
        return self.size == self._length


class ChunkedReader(BodyReader):
    """A body in chunks, which the parser that has read the head takes apart."""

    def __init__(self, parser: h11.Connection, limits: HttpLimits) -> None:
        super().__init__()
        self._parser = parser
        self._limits = limits
        self._chunks = 0

    def feed(self, data: memoryview) -> bool:
        """Takes ``data`` and counts."""
        self._parser.receive_data(cast(bytes, data))  # it copies any bytes-like object
        try:
            while isinstance(event := self._parser.next_event(), h11.Data):
                self._gather(event.data)
                self._chunks += event.chunk_start
                if self._chunks > _FREE_CHUNKS + self.size // _MEAN_CHUNK_BYTES:
                    raise Refused(400, "the body comes in too many small chunks")
                if self.size > self._limits.body_bytes:
                    raise too_large(self._limits)
        except h11.RemoteProtocolError:
            raise Refused(400, MALFORMED) from None
        if isinstance(event, h11.EndOfMessage):
            self.rest = self._parser.trailing_data[0]
            return True
        self._check_chunk_announced()
        return False

    def _check_chunk_announced(self) -> None:
        # h11 has no public name for the size of a chunk of which nothing has come yet. Without
        # it (h11 may rename it), a client that announces 2^64 bytes is told 408 instead of 400.
        announced = getattr(getattr(self._parser, "_reader", None), "_bytes_in_chunk", 0)
        if announced > _ABSURD_BYTES:
            raise Refused(400, MALFORMED)
        if self.size + announced > self._limits.body_bytes:
            raise too_large(self._limits)
