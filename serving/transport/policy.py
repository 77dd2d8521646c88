"""Who may do what. Every host asks here before a handler runs; no front end can forget it."""

from __future__ import annotations

import ipaddress

from crossfade.runtimes.core.errors import PermissionDenied
from crossfade.serving.transport.calls import Access, Caller


class LoopbackAdmin:
    """Everybody may infer and read; only callers on this machine may administrate."""

    def check(self, access: Access, caller: Caller) -> None:
        """See ``Policy.check``."""
        if access is Access.ADMIN and not _is_local(caller.peer):
            raise PermissionDenied("administration is allowed from this machine only")


def _is_local(peer: str) -> bool:
    if peer == "unix":
        return True
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1, as dual-stack sockets say
    return (mapped or address).is_loopback
