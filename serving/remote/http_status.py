"""What a status of HTTP means, for all contracts over it."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Final

import orjson

from crossfade.runtimes.core.errors import Code
from crossfade.serving.remote.failures import FarError
from crossfade.serving.remote.http_client import Answer

_CODES: Final = {
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.FAILED_PRECONDITION,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.UNAVAILABLE,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_RETRY_AFTER: Final = "retry-after"
_MOST_TEXT: Final = 4096


def checked(answer: Answer) -> bytes:
    """Returns the body of an answer that is one.

    Raises:
        FarError: its status says that it is none.
    """
    status = answer.status
    if status == 200:
        return answer.body
    code = _CODES.get(status)
    if code is None:
        code = Code.INVALID_ARGUMENT if 400 <= status < 500 else Code.INTERNAL
    wait_s = _retry_after_s(answer.headers.get(_RETRY_AFTER))
    raise FarError(
        code,
        f"{status} {_said(answer.body)}" if code is Code.INTERNAL else _said(answer.body),
        retryable=status == 503 or (status == 429 and wait_s is not None),
        retry_after_s=wait_s,
        ill=status in (502, 503),
    )


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of the header, which has them or a date."""
    if value is None:
        return None
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _said(body: bytes) -> str:
    """The message of an error: ``{"error": text}``, or Google's ``{"error": {"message": …}}``."""
    text = body[:_MOST_TEXT].decode("utf-8", "replace")
    if len(body) > _MOST_TEXT:
        return text
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return text
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else text
