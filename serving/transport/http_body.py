"""Collects the body of a request within its limits."""

from __future__ import annotations

import abc
import io
from typing import Final, cast

import h11

from crossfade.serving.transport.calls import PayloadLimit
from crossfade.serving.transport.http_answer import Refused, too_large
from crossfade.serving.transport.http_head import MALFORMED
from crossfade.serving.transport.http_limits import HttpLimits

# Chunks cost 10 us each, whatever they hold. A client that streams line by line is served; one
# that sends millions of single bytes is not.
_FREE_CHUNKS: Final = 4096
_MEAN_CHUNK_BYTES: Final = 512
# No body is that long: a chunk size that wraps around in other servers.
_ABSURD_BYTES: Final = 2**62


class BodyReader(abc.ABC):
    """The body of one request on its way in.

    Args:
        limits: of the host.
        limit: of the route.

    Attributes:
        size: bytes received so far.
        rest: what came after the body, once it is whole.
    """

    def __init__(self, limits: HttpLimits, limit: PayloadLimit | None = None) -> None:
        self._max_bytes, self._advice = limits.body_bytes, ""
        if limit and limit.max_bytes < limits.body_bytes:
            self._max_bytes, self._advice = limit.max_bytes, limit.advice
        # It grows in place and gives its bytes away without a copy, unlike a list or a bytearray.
        self._content = io.BytesIO()
        self.size = 0
        self.rest = b""

    @abc.abstractmethod
    def feed(self, data: memoryview) -> bool:
        """Takes ``data``, which may be overwritten afterwards; returns whether the body is whole.

        Raises:
            Refused: too large (413), or malformed or in too many chunks (400).
        """

    def take(self) -> bytes:
        """Returns the body."""
        return self._content.getvalue()

    def _check_size(self, size: int) -> None:
        """Refuses a body that is, or will be, of more bytes than it may have."""
        if size > self._max_bytes:
            raise Refused(413, too_large("the body", self._max_bytes, self._advice))

    def _gather(self, data: memoryview | bytes) -> None:
        self.size += self._content.write(data)


class LengthReader(BodyReader):
    """A body of announced length."""

    def __init__(self, length: int, limits: HttpLimits, limit: PayloadLimit | None = None) -> None:
        super().__init__(limits, limit)
        self._check_size(length)
        self._length = length

    def feed(self, data: memoryview) -> bool:
        """Takes ``data`` up to the length announced."""
        missing = self._length - self.size
        self._gather(data[:missing])
        self.rest = bytes(data[missing:])
        return self.size == self._length


class ChunkedReader(BodyReader):
    """A body in chunks.

    Args:
        head: tells the parser what it is in; parsed before without an error.
    """

    def __init__(self, head: bytes, limits: HttpLimits, limit: PayloadLimit | None = None) -> None:
        super().__init__(limits, limit)
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._parser.receive_data(head)
        self._parser.next_event()
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
                self._check_size(self.size)
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
        self._check_size(self.size + announced)
