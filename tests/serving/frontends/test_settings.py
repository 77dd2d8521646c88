"""Trace and log settings: known ones only, and never a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from crossfade.runtimes.core.errors import CrossfadeError, NotFound
from crossfade.serving.frontends.open_inference.settings import LogSettings, TraceSettings


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    found = logging.getLogger()
    before = found.level
    found.setLevel(logging.INFO)
    yield found
    found.setLevel(before)


def refusal(function: Any, *arguments: Any) -> str:
    with pytest.raises(CrossfadeError) as caught:
        function(*arguments)
    return caught.value.code.name


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"log_file": "/etc/passwd"}, "PERMISSION_DENIED"),
        ({"log_files": "x"}, "INVALID_ARGUMENT"),
        ({"log_info": 1}, "INVALID_ARGUMENT"),
        ({"log_info": None}, "INVALID_ARGUMENT"),
        ({"log_verbose_level": True}, "INVALID_ARGUMENT"),
        ({"log_verbose_level": -1}, "INVALID_ARGUMENT"),
        ({"log_verbose_level": 2**32}, "INVALID_ARGUMENT"),
        ({"log_format": "ISO8601"}, "UNIMPLEMENTED"),
        ({"log_info": False, "log_file": "x"}, "PERMISSION_DENIED"),
    ],
)
def test_log_settings_refused(root: logging.Logger, wanted: dict[str, Any], code: str) -> None:
    logs = LogSettings()
    before = logs.update({})
    assert refusal(logs.update, wanted) == code
    assert logs.update({}) == before
    assert root.level == logging.INFO


def test_log_settings_set_the_level(root: logging.Logger) -> None:
    logs = LogSettings()
    assert logs.update({})["log_info"] is True
    assert logs.update({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert root.level == logging.DEBUG
    logs.update({"log_verbose_level": 0, "log_info": False})
    assert root.level == logging.WARNING
    logs.update({"log_warning": False, "log_error": False})
    assert root.level > logging.CRITICAL


def no_model(name: str) -> None:
    if name != "simple":
        raise NotFound("no")


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"trace_file": ["/tmp/x"]}, "PERMISSION_DENIED"),
        ({"trace_files": ["x"]}, "INVALID_ARGUMENT"),
        ({"trace_level": ["LOUD"]}, "INVALID_ARGUMENT"),
        ({"trace_level": ["TIMESTAMPS"]}, "UNIMPLEMENTED"),
        ({"trace_level": ["OFF", "TENSORS"]}, "UNIMPLEMENTED"),
        ({"trace_rate": ["x"]}, "INVALID_ARGUMENT"),
        ({"trace_rate": ["1", "2"]}, "INVALID_ARGUMENT"),
        ({"trace_rate": ["5"]}, "UNIMPLEMENTED"),
        ({"trace_mode": ["opentelemetry"]}, "UNIMPLEMENTED"),
        ({"trace_mode": ["x"]}, "INVALID_ARGUMENT"),
    ],
)
def test_trace_settings_refused(wanted: dict[str, list[str]], code: str) -> None:
    assert refusal(TraceSettings(no_model).update, "", wanted) == code


def test_trace_settings_say_that_it_is_off() -> None:
    traces = TraceSettings(no_model)
    assert traces.update("simple", {"trace_level": ["OFF"], "trace_rate": []}) == traces.update(
        "", {}
    )
    assert traces.update("", {})["trace_level"] == ["OFF"]
    assert refusal(traces.update, "nobody", {}) == "NOT_FOUND"


def test_what_is_traced_is_shown_and_stays() -> None:
    traces = TraceSettings(lambda name: None, 100)
    found = traces.update("", {})
    assert (found["trace_level"], found["trace_rate"]) == (["TIMESTAMPS"], ["100"])
    assert found["trace_mode"] == ["opentelemetry"]
    assert traces.update("", {"trace_rate": ["100"], "trace_level": ["TIMESTAMPS"]}) == found
    for wanted in ({"trace_level": ["OFF"]}, {"trace_rate": ["1"]}, {"trace_mode": ["triton"]}):
        assert refusal(traces.update, "", wanted) == "UNIMPLEMENTED"
