"""Logs: one JSON object a line, or text for a terminal; control characters are escaped in both."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, keys as Google Cloud and most collectors read them."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter.format``."""
        line: dict[str, Any] = {
            "time": _utc(record.created),
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # escapes every control character


class TextFormatter(logging.Formatter):
    """A line for people; what strangers sent cannot forge another one."""

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter.format``."""
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        text = f"{_utc(record.created)} {record.levelname.lower():8}{record.getMessage()}{extra}"
        text = _escape(text)
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n    {_escape(line)}" for line in trace)
        return text


def set_up(style: str, level: str) -> None:
    """Sends all logs to stderr in ``style`` (``json`` or ``text``)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
