"""The bytes of protobuf messages, field by field, for what is too large to be parsed as a whole."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from crossfade.runtimes.core.errors import InvalidArgument

# Messages without tensors are small: of millions of empty fields a parser would make objects.
_SMALL_BYTES = 1024 * 1024
_FIXED = {1: 8, 5: 4}  # bytes of the wire types that have a fixed size


def parse(kind: Any, message: bytes | memoryview) -> Any:
    """Parses any message; raises InvalidArgument if these bytes are none of that kind."""
    try:
        return kind.FromString(message)
    except DecodeError:
        name = kind.DESCRIPTOR.name
        raise InvalidArgument(f"the request is not a valid {name} message") from None


def parse_small(kind: Any, message: bytes | memoryview) -> Any:
    """As ``parse``, for messages that carry no tensors; refuses those that nobody would send."""
    if len(message) > _SMALL_BYTES:
        name = kind.DESCRIPTOR.name
        raise InvalidArgument(f"a {name} message has at most {_SMALL_BYTES} bytes")
    return parse(kind, message)


def walk(view: memoryview, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Yields the tag, where the field begins, and where its content begins and ends.

    Raises:
        InvalidArgument: there are more than ``limit``.
        IndexError: it is not of the form that serialisers write; a parser may still read it.
    """
    at, size = 0, len(view)
    for _ in range(limit):
        if at == size:
            return
        tag, start = varint(view, at)
        kind = tag & 7
        if kind == 2:
            length, start = varint(view, start)
            end = start + length
        elif kind == 0:
            end = varint(view, start)[1]
        elif kind in _FIXED:
            end = start + _FIXED[kind]
        else:
            raise IndexError
        if end > size:
            raise IndexError
        yield tag, at, start, end
        at = end
    if at != size:
        raise InvalidArgument(f"the request has more than {limit} fields")


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """Reads a variable-length integer; returns it, and where it ends.

    Raises:
        IndexError: there is none.
    """
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


@functools.lru_cache(4096)
def varint_bytes(value: int) -> bytes:
    """Writes a variable-length integer that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
