"""The RPC table: what a contract offers, in plain values that no network library appears in.

A contract is a list of ``Rpc`` (for gRPC hosts) and of ``Route`` (for the HTTP host). A gRPC host
pulls complete messages off the network and hands them, one or many at a time, to ``dispatch``.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from crossfade.runtimes.core.errors import CrossfadeError, Internal
from crossfade.runtimes.core.model import Cancellation
from crossfade.serving.transport.operation import Operation

Request = TypeVar("Request")
Response = TypeVar("Response")
Buffer = bytes | memoryview
_log = logging.getLogger(__name__)


class Access(enum.Enum):
    """What a caller must be allowed to do before an RPC or a route runs.

    PROBE (is the server up?) is for everybody, and says nothing else.
    """

    PROBE = "probe"
    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


class Call(Protocol):
    """One unary call as a host received it; answered exactly once."""

    @property
    def message(self) -> Buffer:
        """The request's bytes; valid for the life of the call."""
        ...

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """Lower-case keys; ``-bin`` values are bytes."""
        ...

    @property
    def peer(self) -> str:
        """The caller's IP address, or ``unix``."""
        ...

    @property
    def deadline_s(self) -> float | None:
        """``time.monotonic()`` value after which the caller has gone."""
        ...

    @property
    def cancelled(self) -> Cancellation:
        """Set when the caller cancels or disconnects."""
        ...

    def reply(self, message: bytes) -> None:
        """Answers with OK and these bytes."""
        ...

    def fail(self, error: CrossfadeError) -> None:
        """Answers with the status of ``error.code`` and its message."""
        ...


class Caller(Protocol):
    """Who calls, as far as a policy needs to know; a ``Call`` and an ``HttpRequest`` both are."""

    @property
    def peer(self) -> str:
        """The caller's IP address, or ``unix``."""
        ...

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """Metadata of gRPC or headers of HTTP, lower-case keys."""
        ...


class StreamCall(Caller, Protocol):
    """A call of a streaming method."""

    @property
    def cancelled(self) -> Cancellation:
        """Set when the caller cancels or disconnects."""
        ...


class Policy(Protocol):
    """Who may do what; the one place that every door asks."""

    def check(self, access: Access, caller: Caller) -> None:
        """Raises PermissionDenied, Unauthenticated or ResourceExhausted if it may not now."""
        ...


def never(_: Buffer) -> bool:
    """Says that a call may take any time."""
    return False


def always(_: Buffer) -> bool:
    """Says that a call takes next to none, whatever it asks."""
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Rpc(Generic[Request, Response]):
    """One unary method of a contract.

    Attributes:
        path: ``/package.Service/Method``.
        decode: bytes to message; raises InvalidArgument.
        handle: answers each of several requests, in order, with a message or an error.
        encode: message to bytes.
        is_quick: whether a call with this message, by all that is known, neither waits nor
            computes for more than a fraction of a millisecond; a host may then run it on the
            thread that received it. A wrong guess costs others a wait.
    """

    path: str
    access: Access
    decode: Callable[[Buffer], Request]
    handle: Callable[[Sequence[tuple[Request, Call]]], Sequence[Response | CrossfadeError]]
    encode: Callable[[Response], bytes]
    is_quick: Callable[[Buffer], bool] = never


@dataclasses.dataclass(frozen=True, slots=True)
class StreamRpc(Generic[Request, Response]):
    """One streaming method; a client that sends one message and half-closes is a special case.

    Attributes:
        handle: yields answers while it reads requests; it is closed when the caller goes.
    """

    path: str
    access: Access
    decode: Callable[[Buffer], Request]
    handle: Callable[[Iterator[Request], StreamCall], Iterator[Response]]
    encode: Callable[[Response], bytes]


def each(
    one: Callable[[Request, Call], Response],
) -> Callable[[Sequence[tuple[Request, Call]]], Sequence[Response | CrossfadeError]]:
    """Makes a batch handler of a function that answers one request or raises."""

    def handle(requests: Sequence[tuple[Request, Call]]) -> Sequence[Response | CrossfadeError]:
        answers: list[Response | CrossfadeError] = []
        for request, call in requests:
            try:
                answers.append(one(request, call))
            except CrossfadeError as error:
                answers.append(error)
        return answers

    return handle


def dispatch(rpc: Rpc[Any, Any], policy: Policy, calls: Sequence[Call]) -> None:
    """Runs ``rpc`` for complete calls and answers each of them; raises nothing."""
    accepted: list[tuple[Any, Call]] = []
    for call in calls:
        try:
            policy.check(rpc.access, call)
            accepted.append((rpc.decode(call.message), call))
        except Exception as error:
            call.fail(_as_error(error, rpc.path))
    if not accepted:
        return
    try:
        answers = rpc.handle(accepted)
    except Exception as error:
        hidden = _as_error(error, rpc.path)
        answers = [hidden] * len(accepted)
    for (_, call), answer in zip(accepted, answers, strict=True):
        if isinstance(answer, CrossfadeError):
            call.fail(answer)
            continue
        try:
            message = rpc.encode(answer)
        except Exception as error:
            call.fail(_as_error(error, rpc.path))
        else:
            call.reply(message)


def _as_error(error: Exception, path: str) -> CrossfadeError:
    return error if isinstance(error, CrossfadeError) else Internal.hide(error, _log, path)


@dataclasses.dataclass(frozen=True, slots=True)
class HttpRequest:
    """One complete HTTP request, body decompressed.

    Attributes:
        path: percent-decoded once, without the query.
        headers: lower-case names; repeated headers joined with a comma.
        deadline_s: ``time.monotonic()`` value after which the caller has been told 504.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    cancelled: Cancellation
    deadline_s: float | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        """The headers, under the name that a policy knows."""
        return self.headers


@dataclasses.dataclass(frozen=True, slots=True)
class HttpResponse:
    """One complete HTTP answer.

    Attributes:
        compressible: whether the client's ``Accept-Encoding`` is followed. Some clients send one
            with everything and decompress some answers only: inference.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Sequence[tuple[str, str]] = ()
    compressible: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class PayloadLimit:
    """The most that a body may have, each way, on the wire.

    Attributes:
        advice: what a client is told to do whose request or answer is larger.
    """

    max_bytes: int
    advice: str


def nowhere(_: HttpRequest) -> HttpRequest | None:
    """Says that a request is meant for the route that it came to."""
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One HTTP route.

    Attributes:
        pattern: regular expression that the whole path matches; its named groups are passed on.
        operation: what is published of it; ``None`` for a route that only refuses.
        limit: holds for requests to this route and for their answers, whoever makes them.
        forward: the request that is asked instead, if its headers say so. It goes, once, to
            the route of its path, with whatever method that has, and is subject to that route's
            access and not to this one's.
    """

    method: str
    pattern: str
    access: Access
    handle: Callable[[HttpRequest, Mapping[str, str]], HttpResponse]
    operation: Operation | None = None
    limit: PayloadLimit | None = None
    forward: Callable[[HttpRequest], HttpRequest | None] = nowhere


# The one table from error codes to HTTP statuses that routes use unless their contract differs.
HTTP_STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
}
