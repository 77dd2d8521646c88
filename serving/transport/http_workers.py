"""The threads that run HTTP handlers, and the bounded queues in front of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
)
from crossfade.serving.transport.calls import Access, HttpRequest, HttpResponse, Policy, Route
from crossfade.serving.transport.http_answer import Answer, Refused, encode, refusal, too_large
from crossfade.serving.transport.http_encoding import accepted, deflate, encoding_of, inflate
from crossfade.serving.transport.http_limits import HttpLimits
from crossfade.serving.transport.http_router import HttpRouter

_PROBE_THREADS: Final = 1
# Health and metadata answer, and an administrator gets in, while all other threads infer.
_READ_THREADS: Final = 2
_ADMIN_THREADS: Final = 2
_log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True, eq=False)
class _Pool:
    executor: ThreadPoolExecutor
    capacity: int
    in_flight: int = 0


class Workers:
    """Runs requests on one pool of threads for each kind of access.

    All methods belong to the thread of ``loop``; handlers run on the pools. Threads start when
    they are needed.
    """

    def __init__(
        self,
        policy: Policy,
        limits: HttpLimits,
        router: HttpRouter,
        threads: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._policy = policy
        self._router = router
        self._body_bytes = limits.body_bytes
        self._loop = loop
        sizes = {
            Access.PROBE: _PROBE_THREADS,
            Access.INFER: threads,
            Access.READ: _READ_THREADS,
            Access.ADMIN: _ADMIN_THREADS,
        }
        self._pools = {
            access: _Pool(
                ThreadPoolExecutor(size, thread_name_prefix=f"http-{access.value}"),
                size + limits.max_waiting,
            )
            for access, size in sizes.items()
        }

    def submit(
        self,
        request: HttpRequest,
        route: Route,
        groups: Mapping[str, str],
        deliver: Callable[[Answer], None],
    ) -> None:
        """Has ``request`` handled; ``deliver`` gets the answer, once, on the loop's thread.

        Raises:
            ResourceExhausted: as many requests as may wait already do.
        """
        pool = self._pools[route.access]
        if pool.in_flight >= pool.capacity:
            raise ResourceExhausted("too many requests are waiting", retry_after_s=1.0)
        pool.in_flight += 1
        pool.executor.submit(self._work, pool, request, route, groups, deliver)

    def shutdown(self) -> None:
        """Drops what waits and starts nothing more; handlers that run are not waited for."""
        for pool in self._pools.values():
            pool.executor.shutdown(wait=False, cancel_futures=True)

    def _work(
        self,
        pool: _Pool,
        request: HttpRequest,
        route: Route,
        groups: Mapping[str, str],
        deliver: Callable[[Answer], None],
    ) -> None:
        try:
            answer = encode(self._handle(request, route, groups))
        except (CrossfadeError, Refused) as error:
            answer = encode(refusal(error))
        except BaseException as error:  # a thread that dies would leave its client without answer
            hidden = Internal.hide(error, _log, f"{route.method} {route.pattern}")
            answer = encode(refusal(hidden))
        with contextlib.suppress(RuntimeError):  # the host has stopped: nobody waits for it
            self._loop.call_soon_threadsafe(self._done, pool, answer, deliver)

    def _handle(
        self, request: HttpRequest, route: Route, groups: Mapping[str, str]
    ) -> HttpResponse:
        if request.cancelled.is_set():
            raise Cancelled("the client went away before its turn")
        if request.deadline_s is not None and time.monotonic() >= request.deadline_s:
            raise DeadlineExceeded("the time for this request was over before its turn")
        limit = route.limit
        if forwarded := route.forward(request):
            route, groups = self._router.find_any(forwarded.path)
            request = dataclasses.replace(forwarded, method=route.method)
        self._policy.check(route.access, request)
        if encoding := encoding_of(request.headers.get("content-encoding")):
            body = inflate(request.body, encoding, self._body_bytes)
            request = dataclasses.replace(request, body=body)
        response = route.handle(request, groups)
        if response.compressible and (coding := accepted(request.headers.get("accept-encoding"))):
            headers = (*response.headers, ("Content-Encoding", coding), ("Vary", "Accept-Encoding"))
            body = deflate(response.body, coding)
            response = dataclasses.replace(response, body=body, headers=headers)
        if limit and len(response.body) > limit.max_bytes:
            raise Refused(413, too_large("the answer", limit.max_bytes, limit.advice))
        return response

    def _done(self, pool: _Pool, answer: Answer, deliver: Callable[[Answer], None]) -> None:
        pool.in_flight -= 1
        deliver(answer)
