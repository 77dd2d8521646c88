"""The error tree: as it is drawn, one code each, and nothing internal in what a client reads."""

from __future__ import annotations

import inspect
import logging
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core import errors
from crossfade.runtimes.core.errors import (
    Code,
    CrossfadeError,
    Internal,
    LoadFailed,
    MissingExtra,
    ResourceExhausted,
    Unimplemented,
    escape,
)

CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, CrossfadeError)
]


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert errors.__doc__ is not None
    drawn: list[tuple[str, str]] = []
    parents: dict[int, str] = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^([│ ├└─]*)([A-Z]\w+)(?:\s{2,}|$)", line)
        if not found:
            continue
        depth = len(found[1]) // 4
        parents[depth] = found[2]
        drawn.append((found[2], parents[depth - 1] if depth else "Exception"))
    assert sorted(drawn) == sorted((c.__name__, c.__mro__[1].__name__) for c in CLASSES)


def test_every_code_has_one_class_that_is_named_like_it() -> None:
    direct = {c.code: c.__name__ for c in CLASSES if c.__mro__[1] is CrossfadeError}
    assert direct == {
        code: "".join(word.capitalize() for word in code.value.split("_")) for code in Code
    }
    assert all(code.name == code.value for code in Code)


def test_an_error_that_says_nothing_is_our_fault() -> None:
    assert CrossfadeError("x").code is Code.INTERNAL
    assert LoadFailed.code is Code.INTERNAL
    assert MissingExtra.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize("kind", [c for c in CLASSES if c is not MissingExtra])
def test_the_message_is_what_was_said(kind: type[CrossfadeError]) -> None:
    error = kind("no such thing", retry_after_s=1.5)
    assert error.message == str(error) == "no such thing"
    assert error.retry_after_s == 1.5
    assert kind("x").retry_after_s is None


def test_a_missing_extra_says_how_to_get_it() -> None:
    error = MissingExtra("onnx", "an ONNX model")
    assert isinstance(error, Unimplemented)
    assert error.extra == "onnx"
    assert error.message == (
        "an ONNX model needs the optional extra [onnx]: pip install 'crossfade[onnx]'"
    )


def test_hide_logs_everything_and_tells_only_an_id(caplog: pytest.LogCaptureFixture) -> None:
    cause = ValueError("/secret/path and more")
    log = logging.getLogger("crossfade.test")
    error = Internal.hide(cause, log, "loading flowers")
    assert type(error) is Internal
    assert error.__cause__ is cause
    found = re.fullmatch(
        r"internal error; quote the id ([0-9a-f]{12}) to the server's operator", error.message
    )
    assert found
    (record,) = caplog.records
    assert record.getMessage() == f"loading flowers failed, error id {found[1]}"
    assert "/secret/path and more" in caplog.text
    assert record.name == "crossfade.test"


def test_hide_keeps_the_class_that_asks() -> None:
    error = LoadFailed.hide(ValueError("x"), logging.getLogger("crossfade.test"), "loading")
    assert type(error) is LoadFailed


def test_no_two_hidden_errors_have_one_id() -> None:
    log = logging.getLogger("crossfade.test")
    assert len({Internal.hide(ValueError(), log, "x").message for _ in range(100)}) == 100


def test_codes_survive_another_process() -> None:
    assert pickle.loads(pickle.dumps(Code.UNAVAILABLE)) is Code.UNAVAILABLE


def test_only_errors_that_pass_by_themselves_are_raised_with_a_hint() -> None:
    assert ResourceExhausted("full", retry_after_s=0.05).retry_after_s == 0.05


@given(text=st.text(st.characters(), max_size=400))
def test_what_a_client_sent_is_shown_short_and_harmless(text: str) -> None:
    shown = escape(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 10 * 128


def test_plain_text_is_shown_as_it_is() -> None:
    assert escape("flowers_v2.1-x y") == "flowers_v2.1-x y"
    assert escape("a\r\nb\x1b\u202e") == r"a\r\nb\x1b\u202e"
    assert escape("x" * 500) == "x" * 128
