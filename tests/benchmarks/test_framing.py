import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.benchmarks.framing import FRAME_HEADER_BYTES, frame, unframe


def test_frame_is_a_flag_a_big_endian_length_and_the_message():
    assert frame(b"abc") == b"\x00\x00\x00\x00\x03abc"


@given(st.binary(max_size=1000))
def test_unframe_undoes_frame(message):
    assert unframe(frame(message)) == message
    assert len(frame(message)) == FRAME_HEADER_BYTES + len(message)


@pytest.mark.parametrize("data", [b"\x01\x00\x00\x00\x01a", b"\x00\x00\x00\x00\x02a", b"\x00" * 6])
def test_unframe_refuses_compression_and_wrong_lengths(data):
    with pytest.raises(ValueError, match=r"compressed|follow"):
        unframe(data)
