"""Decompresses request bodies within a limit, and compresses answers for clients that ask.

``deflate`` is the zlib format, as RFC 9110 has it; the headerless one is refused. So are gzip
streams of several members, which nobody sends, and of which a body could hold millions.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import Final

from crossfade.serving.transport.http_answer import Refused

_WBITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_WEIGHT: Final = re.compile(r"[01](?:\.\d{0,3})?", re.ASCII)
_INPUT_BYTES: Final = 64 * 1024
_OUTPUT_BYTES: Final = 1024 * 1024
# Up to here the output is kept while it is not known yet whether it fits: the peak of a bomb.
_KEPT_BYTES: Final = 16 * 1024 * 1024


def encoding_of(header: str | None) -> str:
    """Returns the name of a coding that ``inflate`` knows; empty where there is nothing to do.

    Raises:
        Refused: another coding, or several on top of each other (415).
    """
    name = (header or "").strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in _WBITS:
        raise Refused(415, "unsupported Content-Encoding", (("Accept-Encoding", "gzip, deflate"),))
    return name


def accepted(header: str | None) -> str:
    """Picks the coding of an answer by ``Accept-Encoding``; empty where it goes out as it is."""
    weights: dict[str, float] = {}
    for entry in (header or "").lower().split(","):
        name, _, parameter = entry.partition(";")
        weight = parameter.strip().removeprefix("q=") or "1"
        # Of a weight that is none of RFC 9110's nothing is known: not asked for.
        weights[name.strip()] = float(weight) if _WEIGHT.fullmatch(weight) else 0.0
    others = weights.get("*", 0.0)
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, others))
    weight_of_best = weights.get(best, others)
    return best if weight_of_best > 0 and weight_of_best >= weights.get("identity", 0.0) else ""


def deflate(body: bytes, coding: str) -> bytes:
    """Compresses ``body``, fast rather than well: somebody waits for it."""
    return zlib.compress(body, 1, _WBITS[coding])


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Decompresses ``body``; a bomb costs time for ``limit_bytes`` and memory for 16 MiB.

    Raises:
        Refused: more than ``limit_bytes`` (413), or broken (400).
    """
    size = 0
    content = io.BytesIO()
    for piece in _inflated(body, encoding):
        size += len(piece)
        if size > limit_bytes:
            raise Refused(413, f"the decompressed body is larger than {limit_bytes} bytes")
        if size <= _KEPT_BYTES:
            content.write(piece)
        else:
            content = io.BytesIO()
    if size > _KEPT_BYTES:
        content.writelines(_inflated(body, encoding))  # once more, now that it is known to fit
    return content.getvalue()


def _inflated(body: bytes, encoding: str) -> Iterator[bytes]:
    """Yields the output in pieces; input goes in slices as zlib copies what it leaves over."""
    decoder = zlib.decompressobj(_WBITS[encoding])
    view = memoryview(body)
    try:
        for start in range(0, len(body), _INPUT_BYTES):
            waiting: bytes | memoryview = view[start : start + _INPUT_BYTES]
            while waiting and not decoder.eof:
                yield decoder.decompress(waiting, _OUTPUT_BYTES)
                waiting = decoder.unconsumed_tail
            if waiting or decoder.unused_data:
                raise Refused(400, f"the body goes on after the end of its {encoding} stream")
        while not decoder.eof and (rest := decoder.decompress(b"", _OUTPUT_BYTES)):
            yield rest
    except zlib.error:
        raise Refused(400, f"the body is not a {encoding} stream") from None
    if not decoder.eof:
        raise Refused(400, f"the {encoding} stream of the body is cut off")
