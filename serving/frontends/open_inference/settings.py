"""Triton's trace and log settings, as far as they mean something here.

Where logs and traces go is the operator's choice at the start: a file's path is never taken from
the wire. What this server does not do is refused rather than accepted without effect.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import (
    InvalidArgument,
    PermissionDenied,
    Unimplemented,
    escape,
)

_TRACE_DEFAULTS: Final = {
    "trace_file": [""],
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_mode": ["triton"],
}
_TRACE_LEVELS: Final = ("OFF", "TIMESTAMPS", "TENSORS")
_NUMBER: Final = re.compile(r"-1|\d{1,18}", re.ASCII)
# From the most talkative flag to the least; the first that is set decides the level.
_LOG_LEVELS: Final = (
    ("log_verbose_level", logging.DEBUG),
    ("log_info", logging.INFO),
    ("log_warning", logging.WARNING),
    ("log_error", logging.ERROR),
)
_LOG_FORMATS: Final = ("default", "ISO8601")
_SILENT: Final = logging.CRITICAL + 1
_MAX_VERBOSE: Final = 2**32


class TraceSettings:
    """What tracing was set to when the server started. Thread-safe.

    Args:
        check_model: raises if there is no model of that name.
        rate: one of so many requests is traced, by OpenTelemetry; ``None`` traces none.
    """

    def __init__(self, check_model: Callable[[str], object], rate: int | None = None) -> None:
        self._check_model = check_model
        self._now = dict(_TRACE_DEFAULTS)
        if rate is not None:
            self._now |= {
                "trace_level": ["TIMESTAMPS"],
                "trace_rate": [str(rate)],
                "trace_mode": ["opentelemetry"],
            }

    def update(self, model: str, wanted: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Returns the settings, once it is clear that nothing in ``wanted`` changes them.

        Args:
            model: whose settings; empty are the server's.
            wanted: new values; none at all clear a setting.

        Raises:
            InvalidArgument: an unknown setting, or a value that makes no sense.
            PermissionDenied: a file.
            Unimplemented: a setting that would have an effect.
        """
        if model:
            self._check_model(model)
        for name, values in wanted.items():
            _check_trace(name, values, self._now.get(name))
        return {name: list(values) for name, values in self._now.items()}


def _check_trace(name: str, values: list[str], now: list[str] | None) -> None:
    if now is None:
        raise InvalidArgument(f"unknown trace setting '{escape(name)}'")
    if not values or values == now:
        return
    if name == "trace_file":
        raise PermissionDenied("trace file location can not be updated")
    if name == "trace_level":
        is_sane = all(value in _TRACE_LEVELS for value in values)
    elif name == "trace_mode":
        is_sane = values in (["opentelemetry"], ["triton"])
    else:
        is_sane = len(values) == 1 and _NUMBER.fullmatch(values[0]) is not None
    if not is_sane:
        raise InvalidArgument(f"trace setting '{name}' has a value that it cannot have")
    raise Unimplemented(
        f"trace setting '{name}' cannot be changed: what is traced is chosen when the server starts"
    )


class LogSettings:
    """How much the server logs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        level = logging.getLogger().getEffectiveLevel()
        self._values: dict[str, Any] = {
            "log_file": "",
            "log_info": level <= logging.INFO,
            "log_warning": level <= logging.WARNING,
            "log_error": level <= logging.ERROR,
            "log_verbose_level": int(level <= logging.DEBUG),
            "log_format": "default",
        }

    def update(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Changes what ``wanted`` names, all of it or nothing, and returns all settings.

        Python's loggers have one threshold: of the flags, the most talkative one counts.

        Raises:
            InvalidArgument: an unknown setting, or a value of the wrong kind.
            PermissionDenied: a file.
            Unimplemented: another format; the command line chooses it.
        """
        with self._lock:
            for name, value in wanted.items():
                self._check(name, value)
            if wanted:
                self._values |= wanted
                levels = (level for name, level in _LOG_LEVELS if self._values[name])
                logging.getLogger().setLevel(next(levels, _SILENT))
            return dict(self._values)

    def _check(self, name: str, value: Any) -> None:
        now = self._values.get(name)
        if now is None:
            raise InvalidArgument(f"unknown log setting '{escape(name)}'")
        if type(value) is not type(now):
            raise InvalidArgument(f"log setting '{name}' has a value of the wrong kind")
        if name == "log_file" and value:
            raise PermissionDenied("log file location can not be updated")
        if name == "log_format" and value not in _LOG_FORMATS:
            raise InvalidArgument("log setting 'log_format' must be 'default' or 'ISO8601'")
        if name == "log_format" and value != now:
            raise Unimplemented("the log format is chosen when the server starts")
        if name == "log_verbose_level" and not 0 <= value < _MAX_VERBOSE:
            raise InvalidArgument("log setting 'log_verbose_level' must be between 0 and 2^32 - 1")
