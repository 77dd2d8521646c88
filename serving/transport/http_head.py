"""Takes the head of a request off the network: limits first, then the parser.

The parser, h11, is lenient where RFC 9112 lets it be (bare line feeds, control characters in
values, lengths said twice) and knows no limits on lines, so that what it gets to see has passed
``complete_head``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

import h11

from crossfade.serving.transport.http_answer import Refused
from crossfade.serving.transport.http_limits import HttpLimits

MALFORMED: Final = "malformed HTTP request"
# Possessive (++): a head that does not match costs one pass and no backtracking.
_CLEAN: Final = re.compile(rb"(?:[\t\x20-\x7e\x80-\xff]++\r\n)++\r\n")
_UNCLEAN: Final = re.compile(rb"[^\t\r\n\x20-\x7e\x80-\xff]|(?<!\r)\n|\r[^\n]")
_TWO_LENGTHS: Final = re.compile(
    rb"\r\ncontent-length:(?:[^\r]*,|(?s:.*)\r\ncontent-length:)", re.IGNORECASE
)
# Clients repeat themselves, and a head costs more than everything else about a small request.
_KNOWN_HEADS: Final = 256
_KNOWN_BYTES: Final = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """A request without its body.

    Attributes:
        path: percent-decoded once, without the query.
        headers: lower-case names; repeated headers joined with a comma.
        keep_alive: whether the client wants to send another request after this one.
        awaits_continue: whether the client wants to hear 100 before it sends its body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool
    awaits_continue: bool

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "transfer-encoding" in self.headers

    @property
    def body_bytes(self) -> int:
        """The length announced; 0 where the body is chunked, or where there is none."""
        return int(self.headers.get("content-length", 0))


def complete_head(inbox: bytearray, checked: int, limits: HttpLimits) -> int:
    """Returns how many bytes of ``inbox`` are a head, 0 while it is incomplete.

    Args:
        inbox: what has been received.
        checked: bytes of ``inbox`` that an earlier call has seen; each is looked at once.
        limits: of the host.

    Raises:
        Refused: too large (414, 431), or not HTTP/1 (400), as early as can be told.
    """
    size = inbox.find(b"\r\n\r\n", max(0, checked - 3)) + 4
    is_complete = size > 3
    line_bytes = limits.request_line_bytes
    if len(inbox) > line_bytes and inbox.find(b"\r\n", 0, line_bytes) < 0:
        raise Refused(414, f"the request line is longer than {line_bytes} bytes")
    if (size if is_complete else len(inbox)) > limits.header_bytes:
        raise Refused(431, f"the headers are larger than {limits.header_bytes} bytes")
    if not is_complete:
        if _UNCLEAN.search(inbox, max(0, checked - 1)):
            raise Refused(400, MALFORMED)
        return 0
    if inbox.count(b"\n", 0, size) > limits.header_count + 2:
        raise Refused(431, f"more than {limits.header_count} headers")
    if not _CLEAN.fullmatch(inbox, 0, size) or _TWO_LENGTHS.search(inbox, 0, size):
        raise Refused(400, MALFORMED)
    return size


def parse_head(head: bytes) -> Head:
    """Parses what ``complete_head`` has found.

    Raises:
        Refused: malformed or ambiguous (400), or a transfer coding that we lack (501).
    """
    return _parse_known(head) if len(head) <= _KNOWN_BYTES else _parse(head)


def _parse(head: bytes) -> Head:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == 501:
            raise Refused(501, "the only Transfer-Encoding here is chunked") from None
        raise Refused(400, MALFORMED) from None
    if not isinstance(request, h11.Request) or request.http_version not in (b"1.1", b"1.0"):
        raise Refused(400, "this port speaks HTTP/1.1")
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in request.headers.raw_items():
        name, value = name_bytes.decode("ascii").lower(), value_bytes.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    is_1_0 = request.http_version == b"1.0"
    if "transfer-encoding" in headers and (is_1_0 or "content-length" in headers):
        raise Refused(400, MALFORMED)  # two readings of one request: smuggling
    options = headers.get("connection", "").lower().split(",")
    is_last = is_1_0 or request.method == b"CONNECT" or any(o.strip() == "close" for o in options)
    return Head(
        request.method.decode("ascii"),
        _path_of(request.target),
        MappingProxyType(headers),
        keep_alive=not is_last,
        awaits_continue=parser.they_are_waiting_for_100_continue,
    )


_parse_known = functools.lru_cache(_KNOWN_HEADS)(_parse)


def _path_of(target: bytes) -> str:
    """Decodes the path of a request target once; ``..%2f`` becomes a path that no route matches.

    Raises:
        Refused: the path is no UTF-8 or has a NUL in it.
    """
    path = target.partition(b"?")[0]
    if path[:7].lower() == b"http://" or path[:8].lower() == b"https://":
        path = b"/" + b"".join(path.split(b"/", 3)[3:])
    if b"%" not in path:
        return path.decode("ascii")
    try:
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(400, "the path is not percent-encoded UTF-8") from None
    if "\0" in decoded:
        raise Refused(400, "the path contains a NUL character")
    return decoded
