"""Messages arrive whole or not at all, however the socket cuts them."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.isolated.frames import Broken, Frames

Ends = tuple[Frames, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    here, there = socket.socketpair()
    with here, there:
        yield Frames(here), there


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), plain, max_size=4), max_size=5))
def test_messages_come_in_order(messages: list[dict[str, object]]) -> None:
    here, there = socket.socketpair()
    with here, there:
        sender, receiver = Frames(here), Frames(there)
        for message in messages:
            sender.send(message)
        assert [receiver.receive(time.monotonic() + 5) for _ in messages] == messages


def test_what_came_in_part_is_kept_when_the_time_is_up(ends: Ends) -> None:
    receiver, raw = ends
    body = b'{"a":1}'
    raw.sendall(struct.pack("<I", len(body)) + body[:3])
    with pytest.raises(TimeoutError):
        receiver.receive(time.monotonic() + 0.05)
    raw.sendall(body[3:])
    assert receiver.receive(time.monotonic() + 5) == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_message_is_said_to_be_broken(ends: Ends, body: bytes) -> None:
    receiver, raw = ends
    raw.sendall(struct.pack("<I", len(body)) + body)
    with pytest.raises(Broken):
        receiver.receive(time.monotonic() + 5)


def test_a_length_that_no_message_has_is_not_waited_for(ends: Ends) -> None:
    receiver, raw = ends
    raw.sendall(struct.pack("<I", 0xFFFFFFFF))
    with pytest.raises(Broken):
        receiver.receive()


def test_the_end_of_the_other_side_ends_the_wait(ends: Ends) -> None:
    receiver, raw = ends
    threading.Timer(0.05, raw.shutdown, (socket.SHUT_RDWR,)).start()
    with pytest.raises(Broken):
        receiver.receive()
    with pytest.raises(Broken):
        receiver.send({"a": "b"})
