"""Logs: one line a record in both formats, whatever strangers put into it."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.app.logs import JsonFormatter, TextFormatter, set_up

HOSTILE = "a\r\nERROR forged\x1b[31mred\x1b[0m\x00\x08\x7f\x85\u2028\u202eb"


def record(message: str, *args: object, extra: dict[str, Any] | None = None) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "crossfade.x", "levelno": logging.ERROR, "levelname": "ERROR", "msg": message}
    )
    made.args = args
    made.created = 1_700_000_000.0625
    vars(made).update(extra or {})
    return made


def failed(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


def lines_are_printable(text: str, lines: int = 1) -> bool:
    found = text.split("\n")
    return len(found) == lines and all(line.isprintable() for line in found)


@pytest.mark.parametrize(
    "make",
    [
        lambda: record(HOSTILE),
        lambda: record("name %s", HOSTILE),
        lambda: record("x", extra={"model": HOSTILE}),
        lambda: record("x", extra={HOSTILE: 1}),
        lambda: record("x", extra={"model": [HOSTILE, {"deep": HOSTILE}]}),
        lambda: record("x", extra={"error": ValueError(HOSTILE)}),
    ],
    ids=["message", "argument", "extra", "key", "nested", "object"],
)
def test_control_characters_are_escaped_in_both_formats(make: Any) -> None:
    text = TextFormatter().format(make())
    assert lines_are_printable(text)
    assert r"a\r\nERROR forged\x1b[31mred" in text
    as_json = JsonFormatter().format(make())
    assert lines_are_printable(as_json)
    assert r"a\r\nERROR forged\u001b[31mred" in as_json
    assert HOSTILE in str(list(flat(json.loads(as_json)))), "nothing is lost"


def flat(value: Any) -> Iterator[str]:
    """All texts in a JSON value; ``str`` of a list would escape them again."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield Shown(key)
            yield from flat(item)
    elif isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield Shown(value)


class Shown(str):
    """A text that ``repr`` shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def test_a_trace_is_one_line_of_json_and_indented_lines_of_text() -> None:
    as_json = JsonFormatter().format(failed(HOSTILE))
    assert lines_are_printable(as_json)
    assert "Traceback" in json.loads(as_json)["exception"]
    first, *rest = TextFormatter().format(failed(HOSTILE)).split("\n")
    assert first.endswith("it failed")
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@given(message=st.text(), value=st.text(), key=st.text(min_size=1))
def test_no_text_makes_a_second_line(message: str, value: str, key: str) -> None:
    made = record("%s", message, extra={f"x{key}": value})
    assert lines_are_printable(TextFormatter().format(made))
    as_json = JsonFormatter().format(made)
    assert lines_are_printable(as_json)
    found = json.loads(as_json)
    assert (found["message"], found[f"x{key}"]) == (message, value)


def test_what_a_line_of_json_holds() -> None:
    made = record("loaded %s", "it", extra={"model": "flowers", "version": 3, "ms": 1.5})
    assert json.loads(JsonFormatter().format(made)) == {
        "time": "2023-11-14T22:13:20.062Z",
        "severity": "ERROR",
        "message": "loaded it",
        "logger": "crossfade.x",
        "model": "flowers",
        "version": 3,
        "ms": 1.5,
    }


def test_what_a_line_of_text_holds() -> None:
    made = record("loaded", extra={"model": "flowers", "version": 3})
    assert TextFormatter().format(made) == (
        "2023-11-14T22:13:20.062Z error   loaded model=flowers version=3"
    )


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Puts the process' logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("style", ["json", "text"])
@pytest.mark.usefixtures("own_logging")
def test_set_up(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up(style, "warning")
    logging.getLogger("crossfade.some").info("not this")
    logging.getLogger("crossfade.some").warning("but\nthis", extra={"model": "m"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("and a warning", stacklevel=1)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert "not this" not in err
    assert r"but\nthis" in lines[0]
    assert "and a warning" in lines[1]
    if style == "json":
        assert [json.loads(line)["severity"] for line in lines] == ["WARNING", "WARNING"]
    else:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning ", lines[0])
