"""What commands that ask a running server have in common: how they reach it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, NotFound, Unavailable

_SERVICE: Final = "/inference.GRPCInferenceService/"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds where the server is, and who asks."""
    option = parser.add_argument
    option("--url", default="127.0.0.1:8001", help="the server's gRPC address (%(default)s)")
    option(
        "--timeout-s",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds until it gives up (%(default)s)",
    )
    option("--tls-ca", type=Path, metavar="PEM", help="speak TLS; the server's authority")
    option("--tls-cert", type=Path, metavar="PEM", help="the caller's certificate, and ...")
    option("--tls-key", type=Path, metavar="PEM", help="... its private key, for mutual TLS")


class Client:
    """One channel; turns gRPC's errors into readable ones."""

    def __init__(self, options: argparse.Namespace) -> None:
        import grpc

        self._grpc = grpc
        self._url = options.url
        self._timeout_s = options.timeout_s
        token = os.environ.get("CROSSFADE_TOKEN")
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        limits = (("grpc.max_receive_message_length", -1),)
        if options.tls_ca or options.tls_cert:
            ca, key, cert = map(_read, (options.tls_ca, options.tls_key, options.tls_cert))
            credentials = grpc.ssl_channel_credentials(ca, key, cert)
            self._channel = grpc.secure_channel(options.url, credentials, limits)
        else:
            self._channel = grpc.insecure_channel(options.url, limits)

    def call(self, method: str, request: Any, response: Any, service: str = _SERVICE) -> Any:
        """Calls a method, of the Open Inference Protocol by default; errors are the command's."""
        stub = self._channel.unary_unary(
            service + method, type(request).SerializeToString, response.FromString
        )
        try:
            return stub(request, timeout=self._timeout_s, metadata=self._metadata)
        except self._grpc.RpcError as error:
            if error.code() is self._grpc.StatusCode.UNAVAILABLE and "connect" in error.details():
                raise Unavailable(f"no server answers at {self._url}: is it running?") from None
            said = f"{error.code().name}: {error.details()}{self._remedy(error)}"
            raise InvalidArgument(said) from None

    def _remedy(self, error: Any) -> str:
        """What a user of the command line can do about an error, where that is known."""
        codes = self._grpc.StatusCode
        if error.code() is codes.UNAVAILABLE and "not at ready state" in error.details():
            return " (crossfade models says why)"
        if error.code() is codes.UNAUTHENTICATED and not self._metadata:
            return "; set the environment variable CROSSFADE_TOKEN"
        return ""


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise NotFound(f"'{path}' cannot be read: {error.strerror}") from None
