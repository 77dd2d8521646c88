"""How an operator names a member, and how it is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.fade import members

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda name: ".." not in name
)


class Known:
    """A manager that knows these references."""

    def __init__(self, *refs: ModelRef) -> None:
        self._refs = refs

    def can_answer(self, ref: ModelRef) -> bool:
        if ref not in self._refs:
            raise NotFound("no")
        return True

    def leaves_out(self, name: str, version: int) -> bool:
        return False


@given(NAMES, st.one_of(st.none(), st.integers(1, 10**17), st.text(min_size=1, max_size=9)))
def test_what_is_written_is_read(name: str, which: Any) -> None:
    ref = ModelRef(name, which if isinstance(which, int) else None)
    if isinstance(which, str):
        if ":" in which:
            return
        ref = ModelRef(name, label=which)
    assert members.parse(members.written(ref)) == ref


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("3", ModelRef("flowers", 3)),
        ("automl", ModelRef("flowers", label="automl")),
        ("custom", ModelRef("custom")),
        ("both", ModelRef("flowers", label="both")),
        ("custom:2", ModelRef("custom", 2)),
        ("custom@new", ModelRef("custom", label="new")),
    ],
)
def test_what_an_operator_writes(text: str, meant: ModelRef) -> None:
    manager: Any = Known(meant, ModelRef("both"))
    assert members.read(text, "flowers", manager) == meant


@pytest.mark.parametrize("text", ["3", "nobody", "custom:2", "custom@new", "no label"])
def test_what_is_not_there(text: str) -> None:
    manager: Any = Known()
    with pytest.raises((NotFound, InvalidArgument)):
        members.read(text, "flowers", manager)


@pytest.mark.parametrize("text", ["", "a:", "a:x", "a:-1", "a@", "../a:1", ":1", "@x"])
def test_what_is_no_member(text: str) -> None:
    with pytest.raises(InvalidArgument):
        members.parse(text)
