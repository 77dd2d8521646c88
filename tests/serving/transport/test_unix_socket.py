"""gRPC on a Unix socket: private, cleaned up, and never at the cost of another file."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest

from crossfade.runtimes.core.errors import Unavailable
from crossfade.serving.transport.calls import Access, Caller, Rpc, each
from crossfade.serving.transport.grpc_host import GrpcHost
from crossfade.serving.transport.listening import private_socket
from crossfade.serving.transport.policy import Guard


class Callers(Guard):
    """Lets in whom a guard lets in, and notes who that was."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[str] = []

    def check(self, access: Access, caller: Caller) -> None:
        self.peers.append(caller.peer)
        super().check(access, caller)


def host(path: Path, address: str | None = None, **settings: Any) -> tuple[GrpcHost, Callers]:
    policy = Callers()
    echo = Rpc("/x/Admin", Access.ADMIN, bytes, each(lambda message, _: message), bytes)
    made = GrpcHost(
        *([echo], policy, address), threads=2, max_message_bytes=1024, socket_path=path, **settings
    )
    return made, policy


def call(target: str, message: bytes = b"hi") -> bytes:
    with grpc.insecure_channel(target) as channel:
        return bytes(channel.unary_unary("/x/Admin")(message, timeout=10))


def test_the_socket_and_the_port(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = os.umask(0o022)
    os.umask(before)
    server, policy = host(path, "127.0.0.1:0")
    server.start()
    try:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert os.umask(before) == before  # it is as it was
        assert call(f"unix:{path}") == b"hi"  # an administrator's call, from this machine
        assert call(f"127.0.0.1:{server.port}") == b"hi"
        assert policy.peers == ["unix", "127.0.0.1"]
    finally:
        server.stop(0)
    assert not path.exists()


def test_channel_arguments_count_more_than_ours(tmp_path: Path) -> None:
    server, _ = host(tmp_path / "s", options=(("grpc.max_receive_message_length", 8),))
    server.start()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            call(f"unix:{tmp_path / 's'}", b"x" * 100)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        server.stop(0)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    server, _ = host(tmp_path / "none" / "s")
    with pytest.raises(Unavailable, match="cannot listen on"):
        server.start()
    server.stop(0)


def test_stale_or_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen()
        with pytest.raises(Unavailable, match="a server answers there"), private_socket(path):
            pass
        assert path.exists()
    with private_socket(path):  # nobody listens any more
        assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a socket", "fifo"])
def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        if kind == "file":
            path.write_text("mine")
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            bound.bind(str(tmp_path / "target"))
            path.symlink_to(tmp_path / "target")
        with pytest.raises(Unavailable, match="that is no socket"), private_socket(path):
            pass
    assert path.exists()


def test_the_longest_path(tmp_path: Path) -> None:
    room = 107 - len(str(tmp_path)) - 1
    with private_socket(tmp_path / ("x" * room)), socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / ("x" * room)))
    with (
        pytest.raises(Unavailable, match="too long"),
        private_socket(tmp_path / ("x" * (room + 1))),
    ):
        pass


def test_the_umask_comes_back_after_a_failure(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with pytest.raises(ZeroDivisionError), private_socket(tmp_path / "s"):
            raise ZeroDivisionError
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
