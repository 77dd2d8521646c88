"""The split of an HTTP body: whatever it is told, it gives back what is there or says no."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.frontends.open_inference.binary_body import Tail, split


@given(st.binary(max_size=64), st.lists(st.binary(max_size=32), max_size=5))
def test_what_was_joined_comes_apart(head: bytes, tensors: list[bytes]) -> None:
    found, rest = split(head + b"".join(tensors), str(len(head)))
    assert found == head
    tail = Tail(rest)
    assert [bytes(tail.take(len(tensor), "x")) for tensor in tensors] == tensors
    tail.finish()


def test_without_a_length_all_is_json() -> None:
    assert split(b"{}", None) == (b"{}", b"")


@given(st.binary(max_size=16), st.text(max_size=24) | st.integers().map(str))
@example(b"{}", "-1")
@example(b"{}", "abc")
@example(b"{}", "3")
@example(b"{}", str(2**64))
@example(b"{}", "")
@example(b"{}", "+1")
@example(b"{}", "1_0")
@example(b"{}", "٢")
@example(b"{}", "9" * 5000)
def test_any_length_is_right_or_refused(body: bytes, length: str) -> None:
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) <= len(body):
        head, rest = split(body, length)
        assert (len(head), head + rest) == (int(length), body)
    else:
        with pytest.raises(InvalidArgument, match="between 0 and the size of the body"):
            split(body, length)


SIZES: Any = st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.none()


@given(st.binary(max_size=16), SIZES)
@example(b"1234", 5)
@example(b"1234", -1)
@example(b"1234", 2**62)
@example(b"1234", True)
@example(b"1234", 4.0)
def test_any_size_is_right_or_refused(data: bytes, size: Any) -> None:
    tail = Tail(memoryview(data))
    if type(size) is int and 0 <= size <= len(data):
        assert tail.take(size, "x") == data[:size]
    else:
        with pytest.raises(InvalidArgument, match=r"^input 'x': 'binary_data_size'"):
            tail.take(size, "input 'x'")


def test_nothing_may_be_left() -> None:
    tail = Tail(memoryview(b"1234"))
    tail.take(3, "x")
    with pytest.raises(InvalidArgument, match="1 bytes after"):
        tail.finish()
