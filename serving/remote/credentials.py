"""The headers by which another server knows us."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from crossfade.runtimes.core.errors import Code, LoadFailed
from crossfade.runtimes.extras import require
from crossfade.serving.remote.connecting import http_client
from crossfade.serving.remote.failures import FarError, too_late
from crossfade.serving.remote.http_client import Header, left_s
from crossfade.serving.remote.options import RemoteOptions

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")


class Credentials(Protocol):
    """Thread-safe."""

    def headers(self, until_s: float) -> list[Header]:
        """The headers of one request; raises FarError if there are none by then."""
        ...


class _Fixed:
    """Headers that are in the configuration, for requests without a token."""

    def __init__(self, fixed: Mapping[str, str]) -> None:
        self._fixed = list(fixed.items())

    def headers(self, until_s: float) -> list[Header]:
        """See ``Credentials.headers``."""
        return self._fixed


class _TokenFile(_Fixed):
    """A bearer token in a file that somebody else renews."""

    def __init__(self, fixed: Mapping[str, str], path: Path) -> None:
        super().__init__(fixed)
        self._path = path
        self._read: tuple[tuple[int, int], str] = ((0, 0), "")
        try:
            self.headers(0.0)
        except FarError as error:
            raise LoadFailed(f"option 'token_file': {error.text}") from error

    def headers(self, until_s: float) -> list[Header]:
        """See ``Credentials.headers``."""
        try:
            stat = self._path.stat()
            stamp, token = self._read
            if stamp != (stat.st_mtime_ns, stat.st_size):
                token = self._path.read_text("ascii").strip()
                if not _TOKEN.fullmatch(token):
                    raise FarError(Code.UNAUTHENTICATED, "the file holds no token")
                self._read = ((stat.st_mtime_ns, stat.st_size), token)
        except (OSError, UnicodeDecodeError) as error:
            raise FarError(Code.UNAUTHENTICATED, "the file cannot be read") from error
        return [*self._fixed, ("authorization", f"Bearer {token}")]


class _Google(_Fixed):
    """Application default credentials: a service account's file, or the machine's own."""

    def __init__(self, fixed: Mapping[str, str], timeout_s: float) -> None:
        super().__init__(fixed)
        auth = require("google.auth", "vertex", "a Vertex AI endpoint with google_auth")
        self._error: type[Exception] = require(
            "google.auth.exceptions", "vertex", "google_auth"
        ).GoogleAuthError
        try:
            self._credentials: Any = auth.default(
                scopes=[_SCOPE], request=_GoogleTransport(timeout_s)
            )[0]
        except self._error as error:
            raise LoadFailed("option 'google_auth': there are no default credentials") from error
        self._lock = threading.Lock()
        self._timeout_s = timeout_s

    def headers(self, until_s: float) -> list[Header]:
        """See ``Credentials.headers``; one thread renews the token, the others wait for it."""
        try:
            if not self._lock.acquire(timeout=left_s(until_s)):
                raise TimeoutError
        except TimeoutError:
            raise too_late() from None
        try:
            if not self._credentials.valid:
                self._credentials.refresh(_GoogleTransport(left_s(until_s)))
            token = self._credentials.token
        except TimeoutError:
            raise too_late() from None
        except self._error as error:
            raise FarError(Code.UNAUTHENTICATED, f"no token: {error}") from error
        finally:
            self._lock.release()
        return [*self._fixed, ("authorization", f"Bearer {token}")]


class _GoogleTransport:
    """What google-auth calls to renew a token: our HTTP client, within our deadline."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _GoogleAnswer:
        exceptions = require("google.auth.exceptions", "vertex", "google_auth")
        until_s = time.monotonic() + min(timeout or self._timeout_s, self._timeout_s)
        parts = urlsplit(url)
        path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        client = http_client(url, None, Path(), 1 << 20)
        try:
            found = client.request(
                method, path, list((headers or {}).items()), [body] if body else (), until_s
            )
        except FarError as error:
            raise exceptions.TransportError(error.text) from error
        finally:
            client.close()
        return _GoogleAnswer(found.status, found.headers, found.body)


class _GoogleAnswer:
    """What google-auth reads of an answer."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status, self.headers, self.data = status, headers, data


def credentials(options: RemoteOptions, folder: Path) -> Credentials:
    """Makes the credentials that the options name.

    Raises:
        LoadFailed: there are none.
        MissingExtra: google-auth is not installed.
    """
    if options.token_file:
        return _TokenFile(options.headers, folder / options.token_file)
    if options.google_auth:
        return _Google(options.headers, options.timeout_ms / 1000)
    return _Fixed(options.headers)
