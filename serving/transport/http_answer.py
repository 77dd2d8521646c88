"""From an answer or an error to the bytes that an HTTP client reads."""

from __future__ import annotations

import email.utils
import http
import json
import math
import re
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from crossfade.runtimes.core.errors import Code, CrossfadeError
from crossfade.serving.transport.calls import HTTP_STATUS, HttpResponse

REASONS: Final = {status.value: status.phrase for status in http.HTTPStatus} | {
    499: "Client Closed Request"
}
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-zA-Z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_BODILESS: Final = (204, 304)


class Refused(Exception):
    """HTTP's own refusals, for which the error tree has no code (405, 408, 413 …).

    Attributes:
        message: one sentence for the client.
    """

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def too_large(what: str, max_bytes: int, advice: str = "") -> str:
    """What a client is told, with 413, whose request or answer has more than ``max_bytes``."""
    return f"{what} is larger than {max_bytes} bytes{advice and '; '}{advice}"


class Answer(NamedTuple):
    """An answer ready to be sent.

    Attributes:
        head: status line and headers, without the empty line, so that the connection can still
            add its own.
    """

    head: bytes
    body: bytes


def refusal(error: CrossfadeError | Refused) -> HttpResponse:
    """Says in JSON what is wrong, and when to try again."""
    body = json.dumps({"error": error.message}).encode()
    if isinstance(error, Refused):
        return HttpResponse(error.status, body, headers=error.headers)
    headers: list[tuple[str, str]] = []
    if error.code is Code.UNAUTHENTICATED:
        headers.append(("WWW-Authenticate", "Bearer"))
    if error.retry_after_s is not None:
        headers.append(("Retry-After", str(max(1, math.ceil(error.retry_after_s)))))
    return HttpResponse(HTTP_STATUS[error.code.name], body, headers=headers)


def encode(response: HttpResponse) -> Answer:
    """Formats a handler's answer.

    Raises:
        ValueError: a header would break the framing (UnicodeEncodeError is one, too).
    """
    status = response.status
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}\r\nDate: {_date()}\r\n"]
    body = b"" if status in _BODILESS else response.body
    if status not in _BODILESS:
        lines.append(f"Content-Length: {len(body)}\r\n")
    headers = (("Content-Type", response.content_type),) if body else ()
    for name, value in (*headers, *response.headers):
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"not a header that can be sent: {name!r}: {value!r}")
        lines.append(f"{name}: {value}\r\n")
    return Answer("".join(lines).encode("latin-1"), body)


_date_cache = (0, "")


def _date() -> str:
    """The time now, formatted once a second; a race between threads costs a second formatting."""
    global _date_cache  # noqa: PLW0603
    second, text = _date_cache
    now = int(time.time())
    if now != second:
        text = email.utils.formatdate(now, usegmt=True)
        _date_cache = (now, text)
    return text
