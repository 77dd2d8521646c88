"""TFRecord files: records between lengths and masked CRC-32C sums, which are checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from crossfade.runtimes.core.errors import InvalidArgument

_HEAD: Final = struct.Struct("<QI")  # length, its sum
_TAIL: Final = struct.Struct("<I")
_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C, reflected
_MASK_DELTA: Final = 0xA282EAD8


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE: Final = _table()


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli) of some bytes."""
    value = 0xFFFFFFFF
    table = _TABLE
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def masked(content: bytes) -> int:
    """The sum as TFRecord files have it."""
    value = crc32c(content)
    return ((value >> 15 | value << 17) + _MASK_DELTA) & 0xFFFFFFFF


def write(record: bytes) -> bytes:
    """One record as it stands in a file."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _TAIL.pack(masked(length)), record, _TAIL.pack(masked(record))))


def records(file: BinaryIO, max_record_bytes: int) -> Iterator[bytes]:
    """Yields each record.

    Raises:
        InvalidArgument: a sum is wrong, the file ends in a record, or one is too long.
    """
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            raise InvalidArgument("the record file ends in the middle of a record")
        length, length_sum = _HEAD.unpack(head)
        if masked(head[:8]) != length_sum:
            raise InvalidArgument("it is no record file, or a damaged one: a length is wrong")
        if length > max_record_bytes:
            raise InvalidArgument(f"a record has more than {max_record_bytes} bytes")
        record = file.read(length)
        tail = file.read(_TAIL.size)
        if len(record) < length or len(tail) < _TAIL.size:
            raise InvalidArgument("the record file ends in the middle of a record")
        if masked(record) != _TAIL.unpack(tail)[0]:
            raise InvalidArgument("the record file is damaged: the sum of a record is wrong")
        yield record
