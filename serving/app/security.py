"""What the settings say about who may call, made into a policy and certificates."""

from __future__ import annotations

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config import token_file
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.transport.policy import Guard
from crossfade.serving.transport.rate_limit import RateLimit
from crossfade.serving.transport.tls import Tls


def guard(config: ServerConfig) -> Guard:
    """The policy that every host asks.

    Raises:
        InvalidArgument: the token file is wrong, or administration is open to everybody.
    """
    anywhere = config.admin_from == "anywhere"
    if anywhere and not (config.tokens or config.tls_client_ca):
        raise InvalidArgument(
            "--admin-from anywhere needs --tokens or --tls-client-ca: anybody could load models"
        )
    return Guard(
        token_file.read(config.tokens) if config.tokens else None,
        admin_anywhere=anywhere,
        rate=RateLimit(config.caller_rate) if config.caller_rate else None,
    )


def certificates(config: ServerConfig) -> Tls | None:
    """The server's certificates, if it has any.

    Raises:
        InvalidArgument: one of the files that belong together was not given.
    """
    if config.tls_cert and config.tls_key:
        return Tls(config.tls_cert, config.tls_key, config.tls_client_ca)
    if config.tls_cert or config.tls_key or config.tls_client_ca:
        raise InvalidArgument("TLS needs both --tls-cert and --tls-key")
    return None
