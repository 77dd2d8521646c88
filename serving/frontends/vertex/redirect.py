"""Requests to the predict route that mean another one, as Triton on Vertex AI takes them.

Vertex AI passes on requests to one path only. What else a client wants of a server it says in a
header, and in a media type where the length of a binary body's JSON would be a header of its own.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.transport.calls import HttpRequest

HEADER: Final = "X-Vertex-Ai-Triton-Redirect"
BINARY_MEDIA: Final = "application/vnd.vertex-ai-triton.binary+json"
JSON_LENGTH: Final = "inference-header-content-length"
_BINARY: Final = re.compile(re.escape(BINARY_MEDIA) + r" *; *json-header-size=(\d{1,19})", re.ASCII)
_TARGET: Final = re.compile(r"/?(v2(?:/[^?#]*)?|metrics)")


def target(request: HttpRequest) -> HttpRequest | None:
    """The request that the header asks for; ``None`` without the header.

    Raises:
        InvalidArgument: it names no path of the Open Inference Protocol.
    """
    wanted = request.headers.get(HEADER.lower())
    if wanted is None:
        return None
    found = _TARGET.fullmatch(wanted)
    if not found:
        raise InvalidArgument(f"{HEADER} must be a path that begins with 'v2/', or 'metrics'")
    return as_v2(request, f"/{found[1]}")


def is_binary(request: HttpRequest) -> bool:
    """Whether the body is JSON with the bytes of tensors behind it."""
    return request.headers.get("content-type", "").startswith(BINARY_MEDIA)


def as_v2(request: HttpRequest, path: str) -> HttpRequest:
    """The same request for a path of the Open Inference Protocol.

    Raises:
        InvalidArgument: the media type is of a binary body but does not say how long its JSON is.
    """
    headers = dict(request.headers)
    if is_binary(request):
        found = _BINARY.fullmatch(headers["content-type"])
        if not found:
            raise InvalidArgument(
                f"the Content-Type of a binary body is '{BINARY_MEDIA};json-header-size=N', N being"
                " the length of its JSON"
            )
        headers[JSON_LENGTH] = found[1]
    return dataclasses.replace(request, path=path, headers=headers)
