"""The message framing of gRPC over HTTP/2, for a load generator that sends bytes as they are."""

from __future__ import annotations

import struct

FRAME_HEADER_BYTES = 5
_HEADER = struct.Struct(">BI")


def frame(message: bytes) -> bytes:
    """Put the length prefix of gRPC before one message.

    Args:
        message: A serialised message, uncompressed.

    Returns:
        One compression flag byte (0), four bytes of length, and the message.
    """
    return _HEADER.pack(0, len(message)) + message


def unframe(data: bytes) -> bytes:
    """Take one message out of its frame.

    Args:
        data: Exactly one frame.

    Returns:
        The serialised message.

    Raises:
        ValueError: The frame is compressed, or its length is not that of the data.
    """
    compressed, length = _HEADER.unpack_from(data)
    if compressed:
        raise ValueError("the frame is compressed")
    if len(data) != FRAME_HEADER_BYTES + length:
        raise ValueError(f"the frame says {length} bytes, {len(data) - FRAME_HEADER_BYTES} follow")
    return data[FRAME_HEADER_BYTES:]
