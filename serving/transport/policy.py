"""Who may do what. Every host asks here before a handler runs; no front end can forget it."""

from __future__ import annotations

import ipaddress

from crossfade.runtimes.core.errors import PermissionDenied
from crossfade.serving.transport.calls import Access, Caller
from crossfade.serving.transport.rate_limit import RateLimit
from crossfade.serving.transport.tokens import Tokens


class Guard:
    """The policy of a server. Thread-safe.

    Probes (is the server up?) are always answered: orchestrators send them without credentials.

    Args:
        tokens: who may call; ``None`` lets everybody infer and read.
        admin_anywhere: callers on other machines may administrate, too, if they have the role.
        rate: the share of each caller, told by its token, else by its address.
    """

    def __init__(
        self,
        tokens: Tokens | None = None,
        *,
        admin_anywhere: bool = False,
        rate: RateLimit | None = None,
    ) -> None:
        self._tokens = tokens
        self._admin_anywhere = admin_anywhere
        self._rate = rate

    def check(self, access: Access, caller: Caller) -> None:
        """See ``Policy.check``; raises ResourceExhausted for a caller that calls too often."""
        if access is Access.PROBE:
            return
        name = self._tokens.admit(access, caller) if self._tokens else None
        if access is Access.ADMIN and not self._admin_anywhere and not _is_local(caller.peer):
            raise PermissionDenied("administration is allowed from this machine only")
        if self._rate:
            self._rate.take(f"token {name}" if name else caller.peer)


def _is_local(peer: str) -> bool:
    if peer == "unix":
        return True
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, as dual-stack sockets say
    return (mapped or address).is_loopback
