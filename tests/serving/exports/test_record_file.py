"""TFRecord files: what is written is read, and damage is seen."""

from __future__ import annotations

import contextlib
import io

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports.record_file import crc32c, records, write


def read(content: bytes) -> list[bytes]:
    return list(records(io.BytesIO(content), 1000))


def test_the_sum_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=300))
def test_the_sum_is_that_of_another_implementation(content: bytes) -> None:
    assert crc32c(content) == google_crc32c.value(content)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_what_is_written_is_read(contents: list[bytes]) -> None:
    assert read(b"".join(map(write, contents))) == contents


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_changed_bit_is_seen(content: bytes, data: st.DataObject) -> None:
    written = bytearray(write(content))
    bit = data.draw(st.integers(0, 8 * len(written) - 1))
    written[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidArgument):
        read(bytes(written))


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_missing_end_is_seen(content: bytes, data: st.DataObject) -> None:
    written = write(content)
    with pytest.raises(InvalidArgument, match="middle of a record"):
        read(written[: data.draw(st.integers(1, len(written) - 1))])


@given(st.binary(max_size=200))
def test_garbage(content: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        read(content)


def test_a_record_that_is_too_long_is_not_read() -> None:
    with pytest.raises(InvalidArgument, match="more than 1000"):
        read(write(b"x" * 1001))
