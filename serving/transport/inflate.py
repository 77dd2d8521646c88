"""Compressed messages of gRPC, inflated up to a limit. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument, ResourceExhausted
from crossfade.serving.transport.calls import Buffer

# How zlib calls the two forms.
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_STEP_BYTES: Final = 256 * 1024


def inflate(message: Buffer, encoding: str, max_bytes: int) -> bytes:
    """Inflates ``message``; never holds more than the limit, whatever it becomes.

    Raises:
        InvalidArgument: these bytes are not of this encoding, or are cut short.
        ResourceExhausted: it becomes more than ``max_bytes``.
    """
    size = 0
    counter = zlib.decompressobj(_WINDOW_BITS[encoding])
    rest: Buffer = message
    try:
        while not counter.eof:
            size += len(counter.decompress(rest, _STEP_BYTES))
            if size > max_bytes:
                raise ResourceExhausted(f"Received message larger than max ({max_bytes} bytes)")
            rest = counter.unconsumed_tail
            if not rest and not counter.eof:
                size += len(counter.flush(_STEP_BYTES))
                break
        if not counter.eof or counter.unused_data:
            raise InvalidArgument("the compressed message is cut short, or goes on after its end")
        # Known to fit: now in one piece.
        return zlib.decompress(message, _WINDOW_BITS[encoding], max(size, 1))
    except zlib.error:
        raise InvalidArgument(f"the message is not compressed by {encoding}") from None
