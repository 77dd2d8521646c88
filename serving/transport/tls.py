"""TLS for both hosts, out of the same files."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """Certificates of a server.

    Attributes:
        certificate: PEM, the server's certificate and those that lead to its authority.
        key: PEM, its private key, not encrypted.
        client_authority: PEM; callers must then show a certificate of this authority.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For the HTTP host.

        Raises:
            InvalidArgument: a file is missing, or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # An encrypted key would make OpenSSL ask on the terminal.
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
            if self.client_authority:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self.client_authority)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise InvalidArgument(f"TLS cannot be set up: {_reason(error)}") from error
        return context

    def grpc_credentials(self) -> Any:
        """For the gRPC host. Call ``context`` first: gRPC does not say what is wrong with a file.

        Raises:
            InvalidArgument: a file cannot be read.
        """
        import grpc

        try:
            authority = self.client_authority and self.client_authority.read_bytes()
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
        except OSError as error:
            raise InvalidArgument(f"TLS cannot be set up: {_reason(error)}") from error
        return grpc.ssl_server_credentials(
            [pair], root_certificates=authority, require_client_auth=authority is not None
        )


def _no_password() -> str:
    raise ValueError("the private key is encrypted; give one that is not")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return "a file is not PEM, or not of the right kind"
    if isinstance(error, OSError) and error.filename is None:
        return str(error.strerror or error)
    return str(error)
