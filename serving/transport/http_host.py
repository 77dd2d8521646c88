"""Hosts HTTP routes on one port: an event loop on a thread of its own, handlers on others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Final

from crossfade.serving.transport.calls import Policy, Route
from crossfade.serving.transport.http_connection import LINGER_S, HttpConnection
from crossfade.serving.transport.http_limits import HttpLimits
from crossfade.serving.transport.http_router import HttpRouter
from crossfade.serving.transport.http_shared import Shared
from crossfade.serving.transport.http_workers import Workers
from crossfade.serving.transport.listening import BACKLOG, listen

# How often deadlines are looked at. One timer for all connections: moving a deadline is free.
_CHECK_S: Final = 1.0
_LEAST_CHECK_S: Final = 0.01
# How long a peer may take to say goodbye, as TLS wants it; idle ones do not.
_TLS_SHUTDOWN_S: Final = 5.0


class HttpHost:
    """Serves routes over HTTP/1.1. ``start`` once, ``stop`` once, from any thread.

    Reading, parsing and writing happen on the loop's thread; a complete request goes to a pool of
    threads, where the policy is asked, the body is decompressed and the handler may block.

    Args:
        routes: what is served; handlers are called from many threads at once.
        policy: asked before each handler.
        host: an address or a name; empty means all addresses.
        port: 0 lets the system choose.
        threads: how many inferences run at the same time.
        tls: makes it HTTPS.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        policy: Policy,
        limits: HttpLimits,
        *,
        host: str,
        port: int,
        threads: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._router = HttpRouter(routes)
        self._policy = policy
        self._limits = limits
        self._address = (host, port)
        self._threads = threads
        self._tls = tls
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._address[1]

    def start(self) -> None:
        """Listens and serves, on threads of its own.

        Raises:
            Unavailable: the address cannot be had.
        """
        sockets = listen(*self._address)
        self._address = (self._address[0], sockets[0].getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"http-{self.port}", daemon=True
        )
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(sockets), self._loop).result()
        except BaseException:
            self._stop_loop()
            for opened in sockets:
                opened.close()
            raise

    def stop(self, grace_s: float) -> None:
        """Accepts no more, lets requests finish for ``grace_s`` seconds, then cuts them off.

        Connections without a request close at once. Handlers that still run afterwards find
        their request cancelled and are not waited for. Does nothing if nothing is running.
        """
        if not self._thread:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._drain(grace_s), self._loop).result()
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        if self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None
            self._loop.close()

    async def _open(self, sockets: Sequence[socket.socket]) -> None:
        limits = self._limits
        workers = Workers(self._policy, limits, self._router, self._threads, self._loop)
        self._shared = Shared(limits, self._router, workers)
        timeouts_s = (
            limits.header_timeout_s,
            limits.body_timeout_s,
            limits.write_timeout_s,
            limits.idle_timeout_s,
            limits.request_timeout_s or _CHECK_S * 4,
        )
        self._check_s = max(_LEAST_CHECK_S, min(_CHECK_S, min(timeouts_s) / 4))
        self._check_deadlines()
        self._servers = [
            await self._loop.create_server(
                lambda: HttpConnection(self._shared),
                sock=opened,
                backlog=BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=limits.header_timeout_s if self._tls else None,
                ssl_shutdown_timeout=_TLS_SHUTDOWN_S if self._tls else None,
            )
            for opened in sockets
        ]

    def _check_deadlines(self) -> None:
        self._timer = self._loop.call_later(self._check_s, self._check_deadlines)
        now_s = time.monotonic()
        for connection in tuple(self._shared.connections):
            connection.check(now_s)

    async def _drain(self, grace_s: float) -> None:
        shared = self._shared
        shared.draining = True
        # First only the accepting stops: a connection that has been accepted a moment ago would
        # trip over its closed server in asyncio, and stay open.
        for server in self._servers:
            for opened in server.sockets:
                self._loop.remove_reader(opened.fileno())
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for connection in tuple(shared.connections):
            connection.drain()
        await self._wait_until_empty(grace_s)
        shared.workers.shutdown()
        for connection in tuple(shared.connections):
            connection.abort()
        await self._wait_until_empty(LINGER_S)
        self._timer.cancel()
        # TLS handshakes under way have no connection yet; each is a task of asyncio.
        handshakes = asyncio.all_tasks() - {asyncio.current_task()}
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        await asyncio.sleep(0)

    async def _wait_until_empty(self, timeout_s: float) -> None:
        if self._shared.connections:
            self._shared.empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shared.empty.wait(), timeout_s)
