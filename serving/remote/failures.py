"""What goes wrong on the way to another server, and what a client is told of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from crossfade.runtimes.core.errors import (
    Code,
    CrossfadeError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from crossfade.runtimes.reason import one_line
from crossfade.serving.remote.breaker import Verdict

_MOST_SAID: Final = 2000
# URLs; IPv4 and IPv6 addresses and names, with their ports. None takes more than linear time.
_ADDRESSES: Final = (
    re.compile(r"(?<![\w+.-])[a-z][a-z0-9+.-]*://[^\s'\",;)]+", re.IGNORECASE),
    re.compile(r"\b(?:ipv4|ipv6|dns|unix):[^\s'\",;)]+", re.IGNORECASE),
    re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"),
    re.compile(r"\[(?=[^\]:]{0,4}:[^\]:]{0,4}:)[0-9a-fA-F:.]+(?:%\w+)?\](?::\d+)?"),
    re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"),
    re.compile(r"(?<![\w.-])[A-Za-z0-9][A-Za-z0-9.-]*:\d{2,5}\b"),
)


class FarError(Exception):
    """A call that did not bring an answer.

    Attributes:
        code: what happened, in our words.
        retryable: sending the same again may help.
        retry_after_s: when, if the server said so.
        ill: the server is not well (rather than the request, or this model).
        text: what was said, for the log.
    """

    def __init__(
        self,
        code: Code,
        text: str,
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        ill: bool = False,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.ill = ill

    @property
    def verdict(self) -> Verdict:
        """What it says of the server; running out of time says nothing."""
        if self.ill:
            return Verdict.ILL
        return Verdict.UNKNOWN if self.code is Code.DEADLINE_EXCEEDED else Verdict.WELL


def unreachable(error: BaseException | str) -> FarError:
    """No connection, or one that ended before the answer was there."""
    return FarError(Code.UNAVAILABLE, str(error), retryable=True, ill=True)


def garbage(text: str) -> FarError:
    """An answer that the protocol does not allow, or that the model's signature does not."""
    return FarError(Code.INTERNAL, text, ill=True)


def too_late() -> FarError:
    """The time was up."""
    return FarError(Code.DEADLINE_EXCEEDED, "no answer in time")


def cleaned(text: str) -> str:
    """What the other server said, fit for a client: one line, no address, no path."""
    text = text[:_MOST_SAID]
    for pattern in _ADDRESSES:
        text = pattern.sub("(address)", text)
    return one_line(text)


_LOGGED: Final[Mapping[Code, tuple[type[CrossfadeError], str]]] = {
    Code.UNIMPLEMENTED: (Unimplemented, "does not do that"),
    Code.FAILED_PRECONDITION: (FailedPrecondition, "does not let it run now"),
    # Not the caller is unknown there, but this server is.
    Code.UNAUTHENTICATED: (FailedPrecondition, "does not let this server in"),
    Code.PERMISSION_DENIED: (FailedPrecondition, "does not let this server in"),
    Code.RESOURCE_EXHAUSTED: (ResourceExhausted, "has no room for the request now"),
    Code.DEADLINE_EXCEEDED: (DeadlineExceeded, "gave no answer in time"),
}


def told(error: FarError, model: str, log: logging.Logger) -> CrossfadeError:
    """The error that the client of ``model`` gets; what it is not told is logged."""
    if error.code is Code.INVALID_ARGUMENT:
        return InvalidArgument(f"the server behind '{model}' refuses: {cleaned(error.text)}")
    if error.code is Code.INTERNAL:
        return Internal.hide(error, log, f"the server behind '{model}'")
    kind, what = _LOGGED.get(error.code, (Unavailable, "is not available"))
    log.warning(
        "no answer from the server behind a model",
        extra={"model": model, "code": error.code.value, "reason": one_line(error.text)},
    )
    return kind(f"the server behind '{model}' {what}", retry_after_s=error.retry_after_s)
