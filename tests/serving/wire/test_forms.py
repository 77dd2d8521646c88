"""Messages of one form: the same bytes but for what is in the holes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.wire import forms
from crossfade.serving.wire.forms import Form, Forms


@given(st.binary(min_size=1, max_size=40), st.data())
def test_only_the_holes_may_differ(message: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=6)))
    holes = [slice(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    form = Form.of(message, holes[::-1])
    assert form.match(message) == [message[hole] for hole in holes[::-1]]
    at = data.draw(st.integers(0, len(message) - 1))
    other = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
    inside = any(hole.start <= at < hole.stop for hole in holes)
    assert (form.match(other) is not None) == inside


def test_the_latest_of_a_size_are_kept() -> None:
    found: Forms[int] = Forms()
    for number in range(10):
        found.learn("m", b"%d:x" % number, [slice(2, 3)], number)
    assert found.find("m", b"9:y") == (9, [b"y"])
    assert found.find("m", b"6:y") == (6, [b"y"])
    assert found.find("m", b"5:y") is None
    assert found.find("other", b"9:y") is None


def test_they_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_MOST", 2)
    found: Forms[int] = Forms()
    for number in range(3):
        found.learn(f"m{number}", b"x", [], number)
    assert found.find("m0", b"x") is None
    assert found.find("m2", b"x") == (2, [])
