"""Bearer tokens: who presents one, and what its roles let it do.

Only digests are kept. A token is found by its digest, so that the time of the look-up tells
nothing about a token that is nearly right.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

from crossfade.runtimes.core.errors import PermissionDenied, Unauthenticated
from crossfade.serving.transport.calls import Access, Caller

_SCHEME = "bearer "


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """What is known of one token.

    Attributes:
        name: who uses it; shown in logs, never secret.
        digest: SHA-256 of the token, 64 hexadecimal digits in lower case.
        roles: what its bearer may do.
    """

    name: str
    digest: str
    roles: frozenset[Access]


def digest(token: str) -> str:
    """The digest under which a token is kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Tokens:
    """Tells callers by their token. Immutable."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._by_digest = {token.digest: token for token in tokens}

    def admit(self, access: Access, caller: Caller) -> str:
        """Returns the name of the caller's token.

        Raises:
            Unauthenticated: no token, or one that is not known.
            PermissionDenied: the token's roles do not cover this.
        """
        header = caller.metadata.get("authorization", "")
        if not isinstance(header, str) or header[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated("a token is needed: send 'authorization: Bearer TOKEN'")
        token = self._by_digest.get(digest(header[len(_SCHEME) :].strip()))
        if token is None:
            raise Unauthenticated("the token is not known")
        if access not in token.roles:
            raise PermissionDenied(f"the token has no role '{access.value}'")
        return token.name
