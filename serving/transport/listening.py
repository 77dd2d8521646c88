"""Opens the sockets that a host listens on, and clears the way for the one that gRPC opens."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import Unavailable

BACKLOG: Final = 1024
# ``localhost`` has an IPv6 address on machines without IPv6.
_NOT_HERE: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
# What the kernel takes as the path of a socket, without its closing zero.
_UNIX_PATH_BYTES: Final = 107


def listen(host: str, port: int) -> list[socket.socket]:
    """Listens on all addresses of ``host``, on one port.

    Args:
        host: an IPv4 or IPv6 address or a name; empty means all, as does ``::``.
        port: 0 lets the system choose.

    Raises:
        Unavailable: the address cannot be had, and why.
    """
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, address in found:
            try:
                opened = _bind(family, (address[0], port, *address[2:]), len(found) == 1)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            else:
                sockets.append(opened)
                port = opened.getsockname()[1]
        if not sockets and missing:
            raise missing
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise Unavailable(
            f"cannot listen on {host or '*'}, port {port}: {error.strerror}"
        ) from error
    return sockets


def _bind(family: int, address: tuple[object, ...], is_only: bool) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # ``::`` alone takes IPv4 callers, too; a name's IPv4 address has its own socket.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not is_only))
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


@contextlib.contextmanager
def private_socket(path: Path) -> Iterator[None]:
    """Whoever binds a Unix socket at ``path`` within makes one that only this user can reach.

    The umask is the process's: enter this before other threads make files. A socket that a server
    has left behind is removed; nothing else is.

    Raises:
        Unavailable: a server answers there, or there is something else, or the path is too long.
    """
    if len(os.fsencode(path)) > _UNIX_PATH_BYTES:
        raise Unavailable(f"cannot listen on {path}: the path is too long for a socket")
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    else:
        if kind != stat.S_IFSOCK:
            raise Unavailable(f"cannot listen on {path}: there is something that is no socket")
        _remove_stale(path)
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
        else:
            raise Unavailable(f"cannot listen on {path}: a server answers there")
