"""The one error tree.

CrossfadeError
├── InvalidArgument       the request is wrong; sending it again cannot help
├── NotFound              no such model, version, signature, region …
├── AlreadyExists         a name is taken
├── FailedPrecondition    right request, wrong state of the server
├── PermissionDenied      the caller is known and may not
├── Unauthenticated       the caller is not known
├── ResourceExhausted     a queue or a limit is full; try again later
├── Unavailable           loading, draining, gone; try again later
├── DeadlineExceeded      the caller's time was up before the answer was there
├── Cancelled             the caller went away
├── Unimplemented         this server does not do that
│   └── MissingExtra      … until an optional dependency is installed
└── Internal              our fault; the text is logged, the client gets an id
    └── LoadFailed        a version could not be loaded; the text is for an administrator

Every protocol maps ``code`` to its own status in one total table. Messages reach clients: no
path, traceback or internal name belongs in them.
"""

from __future__ import annotations

import enum
import logging
import uuid
from typing import ClassVar


class Code(enum.Enum):
    """What went wrong, in words that every protocol can translate."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"


def escape(text: str) -> str:
    """Shortens and escapes what a client sent, for a message or a log."""
    return text[:128].encode("unicode_escape").decode("ascii")


class CrossfadeError(Exception):
    """Base of all errors that may cross a public door.

    Attributes:
        code: what a protocol translates into its own status.
        message: one sentence for the client.
        retry_after_s: when to try again, in seconds; ``None`` where that cannot help.
    """

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s


class InvalidArgument(CrossfadeError):
    """The request itself is wrong."""

    code = Code.INVALID_ARGUMENT


class NotFound(CrossfadeError):
    """The thing named does not exist here."""

    code = Code.NOT_FOUND


class AlreadyExists(CrossfadeError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class FailedPrecondition(CrossfadeError):
    """The server's state does not allow the request."""

    code = Code.FAILED_PRECONDITION


class PermissionDenied(CrossfadeError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(CrossfadeError):
    """The caller did not prove who it is."""

    code = Code.UNAUTHENTICATED


class ResourceExhausted(CrossfadeError):
    """A queue, a size limit or a quota is full."""

    code = Code.RESOURCE_EXHAUSTED


class Unavailable(CrossfadeError):
    """Not now: loading, draining or unloaded."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(CrossfadeError):
    """The caller's deadline passed."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(CrossfadeError):
    """The caller gave up."""

    code = Code.CANCELLED


class Unimplemented(CrossfadeError):
    """This server does not do that."""

    code = Code.UNIMPLEMENTED


class MissingExtra(Unimplemented):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, needed_by: str) -> None:
        super().__init__(
            f"{needed_by} needs the optional extra [{extra}]: pip install 'crossfade[{extra}]'"
        )
        self.extra = extra


class Internal(CrossfadeError):
    """Our fault."""

    code = Code.INTERNAL

    @classmethod
    def hide(cls, cause: BaseException, logger: logging.Logger, doing: str) -> Internal:
        """Logs ``cause`` in full and returns an error that gives the client only an id."""
        error_id = uuid.uuid4().hex[:12]
        logger.error("%s failed, error id %s", doing, error_id, exc_info=cause)
        error = cls(f"internal error; quote the id {error_id} to the server's operator")
        error.__cause__ = cause
        return error


class LoadFailed(Internal):
    """A version could not be loaded; the message says why and what to do."""
