"""The wire form of BYTES tensors: what goes in comes out, and nothing else comes in."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.tensors.raw import decode_bytes, encode_bytes

TEXTS = st.lists(st.binary(max_size=20), max_size=12)


def objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def wire_of(values: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


@given(values=TEXTS, view=st.booleans())
def test_round_trip(values: list[bytes], view: bool) -> None:
    data = encode_bytes(objects(values))
    assert data == wire_of(values)
    decoded = decode_bytes(memoryview(data) if view else data, len(values), "x")
    assert decoded.dtype == object
    assert decoded.tolist() == values
    assert all(type(element) is bytes for element in decoded)


def test_rows_are_written_in_row_major_order() -> None:
    matrix = objects([b"a", b"bc", b"", b"d"]).reshape(2, 2)
    assert encode_bytes(matrix) == wire_of([b"a", b"bc", b"", b"d"])
    assert encode_bytes(matrix.T) == wire_of([b"a", b"", b"bc", b"d"])


@given(values=TEXTS, count=st.integers(0, 14))
def test_another_number_of_elements_is_refused(values: list[bytes], count: int) -> None:
    """Unless the bytes happen to hold exactly that many, which they then really do."""
    data = wire_of(values)
    try:
        decoded = decode_bytes(data, count, "x").tolist()
    except InvalidArgument:
        assert count != len(values)
        return
    assert len(decoded) == count
    assert wire_of(decoded) == data


@given(values=TEXTS.filter(bool), data=st.data())
def test_a_message_that_ends_early_is_refused(values: list[bytes], data: st.DataObject) -> None:
    whole = wire_of(values)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InvalidArgument):
        decode_bytes(whole[:cut], len(values), "x")


@given(noise=st.binary(max_size=64), count=st.integers(0, 20))
def test_noise_never_does_worse_than_an_error(noise: bytes, count: int) -> None:
    try:
        decoded = decode_bytes(noise, count, "x")
    except InvalidArgument:
        return
    assert encode_bytes(decoded) == noise


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"", 1, "1 elements need at least 4 bytes, got 0"),
        (b"\x00\x00\x00", 1, "need at least 4 bytes, got 3"),
        (b"\xff\xff\xff\xff", 1, "said to have 4294967295 bytes, but 0 are left"),
        (b"\x02\x00\x00\x00a", 1, "said to have 2 bytes, but 1 are left"),
        (b"\x01\x00\x00\x00ab", 1, "has 1 bytes after its last element"),
        (b"\x04\x00\x00\x00abcd", 2, "unexpected end of BYTES input 'x': 2 elements due"),
        (b"\x00", 0, "has 1 bytes after its last element"),
    ],
)
def test_hostile_prefixes(data: bytes, count: int, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_bytes(data, count, "x")
    assert message in caught.value.message


def test_a_count_that_the_data_cannot_hold_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument):
            decode_bytes(bytes(1000), 2**31 - 1, "x")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
