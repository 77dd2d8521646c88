"""What every gRPC host does alike: the table, seen by grpcio's own client over loopback."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from crossfade.serving.transport import native_host
from crossfade.serving.transport.calls import (
    Access,
    Call,
    Caller,
    Rpc,
    StreamCall,
    StreamRpc,
    always,
    each,
)
from crossfade.serving.transport.grpc_host import GrpcHost
from crossfade.serving.transport.native_host import NativeHost
from crossfade.serving.transport.streams import MAX_STREAMS

HOSTS = {"grpcio": GrpcHost, "native": NativeHost}
LIMIT = 1024 * 1024


class Contract:
    """Handlers whose effects a test can see."""

    def __init__(self) -> None:
        self.metadata: Mapping[str, str | bytes] = {}
        self.peer = ""
        self.deadline_s: float | None = None
        self.waiting = threading.Semaphore(0)
        self.gone = threading.Semaphore(0)
        self.release = threading.Event()
        self.streamed = 0

    def check(self, access: Access, caller: Caller) -> None:
        if access is Access.ADMIN:
            raise PermissionDenied("not you")

    def table(self) -> list[Rpc[Any, Any] | StreamRpc[Any, Any]]:
        def unary(name: str, one: Callable[[bytes, Call], bytes], **more: Any) -> Rpc[Any, Any]:
            access = more.pop("access", Access.INFER)
            return Rpc(f"/test.Service/{name}", access, bytes, each(one), bytes, **more)

        def stream(name: str, handle: Any) -> StreamRpc[Any, Any]:
            return StreamRpc(f"/test.Service/{name}", Access.INFER, bytes, handle, bytes)

        return [
            unary("Echo", lambda message, _: message),
            unary("Quick", lambda message, _: message, is_quick=always),
            unary("Look", self.look, is_quick=always),
            unary("Fail", self.fail),
            unary("Wait", self.wait),
            unary("Admin", lambda message, _: message, access=Access.ADMIN),
            stream("Each", self.each),
            stream("Many", self.many),
            stream("Broken", self.broken),
        ]

    def look(self, message: bytes, call: Call) -> bytes:
        self.metadata, self.peer, self.deadline_s = call.metadata, call.peer, call.deadline_s
        return message

    def fail(self, message: bytes, call: Call) -> bytes:
        errors: dict[bytes, Exception] = {
            b"argument": InvalidArgument("it is 100 % wrong: é\n"),
            b"found": NotFound("there is none"),
            b"full": ResourceExhausted("come back", retry_after_s=1.5),
            b"bug": ZeroDivisionError("secret"),
        }
        raise errors[message]

    def wait(self, message: bytes, call: Call) -> bytes:
        call.cancelled.subscribe(self.gone.release)
        self.waiting.release()
        while not self.release.wait(0.01):
            if call.cancelled.is_set():
                raise Cancelled("gone")
        return message

    def each(self, requests: Iterator[bytes], call: StreamCall) -> Iterator[bytes]:
        call.cancelled.subscribe(self.gone.release)
        self.waiting.release()
        for request in requests:
            yield request * 2

    def many(self, requests: Iterator[bytes], call: StreamCall) -> Iterator[bytes]:
        size = int(next(requests))
        try:
            for _ in range(1000):
                self.streamed += 1
                yield b"m" * size
        finally:
            self.gone.release()

    def broken(self, requests: Iterator[bytes], call: StreamCall) -> Iterator[bytes]:
        for request in requests:
            if request == b"bad":
                raise NotFound("bad")
            yield request


@pytest.fixture(params=sorted(HOSTS))
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and not native_host.is_installed():
        pytest.skip("crossfade-native is not built: make native-deps")
    return str(request.param)


@pytest.fixture
def contract() -> Contract:
    return Contract()


def build(kind: str, contract: Contract, address: str = "127.0.0.1:0") -> Any:
    return HOSTS[kind](contract.table(), contract, address, threads=8, max_message_bytes=LIMIT)


@pytest.fixture
def host(kind: str, contract: Contract) -> Iterator[Any]:
    started = build(kind, contract)
    started.start()
    yield started
    contract.release.set()
    started.stop(1)


@pytest.fixture
def channel(host: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{host.port}") as opened:
        yield opened


def ask(channel: grpc.Channel, method: str, message: bytes = b"", **options: Any) -> bytes:
    options.setdefault("timeout", 20)
    answer: bytes = channel.unary_unary(f"/test.Service/{method}")(message, **options)
    return answer


def refusal(channel: grpc.Channel, method: str, message: bytes = b"", **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, method, message, **options)
    return caught.value


@pytest.mark.parametrize("method", ["Echo", "Quick"])
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 600_000, LIMIT])
def test_a_message_of_any_size(channel: grpc.Channel, method: str, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert ask(channel, method, message) == message


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        (b"argument", "INVALID_ARGUMENT", "it is 100 % wrong: é\n"),
        (b"found", "NOT_FOUND", "there is none"),
        (b"full", "RESOURCE_EXHAUSTED", "come back"),
    ],
)
def test_an_error_becomes_its_status(
    channel: grpc.Channel, how: bytes, code: str, text: str
) -> None:
    error = refusal(channel, "Fail", how)
    assert (error.code().name, error.details()) == (code, text)
    pushback = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
    assert pushback == ("1500" if how == b"full" else None)


def test_a_foreign_error_is_hidden(channel: grpc.Channel) -> None:
    error = refusal(channel, "Fail", b"bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()


def test_the_policy_is_asked(channel: grpc.Channel) -> None:
    assert refusal(channel, "Admin").code() is grpc.StatusCode.PERMISSION_DENIED


def test_an_unknown_method(channel: grpc.Channel) -> None:
    error = refusal(channel, "Nothing")
    assert (error.code(), error.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_metadata_peer_and_deadline(channel: grpc.Channel, contract: Contract) -> None:
    metadata = (("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("x-raw-bin", b"\0\xff\x80"))
    ask(channel, "Look", metadata=metadata, timeout=30)
    assert contract.metadata["x-one"] == "1"
    assert contract.metadata["x-two"] == "b"
    assert contract.metadata["x-raw-bin"] == b"\0\xff\x80"
    assert "grpc-python" in str(contract.metadata["user-agent"])
    assert not {":path", "grpc-timeout", "te"} & set(contract.metadata)
    assert contract.peer == "127.0.0.1"
    assert contract.deadline_s is not None
    assert 20 < contract.deadline_s - time.monotonic() < 30.1


def test_no_deadline(channel: grpc.Channel, contract: Contract) -> None:
    ask(channel, "Look", timeout=None)
    assert contract.deadline_s is None


def test_a_deadline_that_passes_cancels(channel: grpc.Channel, contract: Contract) -> None:
    error = refusal(channel, "Wait", timeout=0.3)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert contract.gone.acquire(timeout=5)


def test_a_caller_that_cancels(channel: grpc.Channel, contract: Contract) -> None:
    call = channel.unary_unary("/test.Service/Wait").future(b"", timeout=30)
    assert contract.waiting.acquire(timeout=5)
    call.cancel()
    assert contract.gone.acquire(timeout=5)


def test_a_caller_that_vanishes(host: Any, contract: Contract) -> None:
    channel = grpc.insecure_channel(f"127.0.0.1:{host.port}")
    future = channel.unary_unary("/test.Service/Wait").future(b"", timeout=30)
    assert contract.waiting.acquire(timeout=5)
    channel.close()
    assert contract.gone.acquire(timeout=5)
    assert future.done()


@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
def test_a_message_over_the_limit(channel: grpc.Channel, size: int) -> None:
    error = refusal(channel, "Echo", bytes(size))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    assert ask(channel, "Echo", b"after") == b"after"


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("method", ["Echo", "Quick"])
def test_compressed_messages(channel: grpc.Channel, how: Any, method: str) -> None:
    message = b"again and " * 10_000
    assert ask(channel, method, message, compression=how) == message
    error = refusal(channel, method, bytes(2 * LIMIT), compression=how)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_over_the_limit(channel: grpc.Channel) -> None:
    error = refusal(channel, "Echo", metadata=[("x-large", "x" * 30_000)])
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask(channel, "Echo", b"after") == b"after"


def test_many_callers_at_once(host: Any) -> None:
    answers: list[tuple[bytes, bytes]] = []

    def call(number: int) -> None:
        with grpc.insecure_channel(
            f"127.0.0.1:{host.port}", (("grpc.use_local_subchannel_pool", 1),)
        ) as opened:
            for turn in range(30):
                message = b"%d-%d" % (number, turn)
                answers.append((message, ask(opened, ("Echo", "Quick")[turn % 2], message)))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 16 * 30
    assert all(sent == got for sent, got in answers)


def test_a_stream_answers_as_it_reads(channel: grpc.Channel) -> None:
    requests: list[bytes] = [b"a", b"", b"c" * 300_000]
    answers = channel.stream_stream("/test.Service/Each")(iter(requests), timeout=20)
    assert list(answers) == [request * 2 for request in requests]


def test_a_compressed_stream(channel: grpc.Channel) -> None:
    answers = channel.stream_stream("/test.Service/Each")(
        iter([b"a" * 50_000] * 3), timeout=20, compression=grpc.Compression.Gzip
    )
    assert list(answers) == [b"a" * 100_000] * 3


def test_an_error_in_the_middle_of_a_stream(channel: grpc.Channel) -> None:
    answers = channel.stream_stream("/test.Service/Broken")(iter([b"1", b"bad", b"2"]), timeout=20)
    assert next(answers) == b"1"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "bad")


def test_a_stream_whose_reader_is_slow(channel: grpc.Channel, contract: Contract) -> None:
    """What it does not read is not made: a window, and no more, is."""
    answers = channel.stream_stream("/test.Service/Many")(iter([b"100000"]), timeout=60)
    assert next(answers) == b"m" * 100_000
    time.sleep(1)
    assert contract.streamed < 500
    answers.cancel()
    assert contract.gone.acquire(timeout=5)


def test_many_messages_wait_in_a_stream(channel: grpc.Channel) -> None:
    """More than all windows hold goes through, in order."""
    requests = [b"%d" % number + b"r" * 60_000 for number in range(400)]
    answers = channel.stream_stream("/test.Service/Each")(iter(requests), timeout=60)
    assert [answer[:3] for answer in answers] == [request[:3] for request in requests]


def test_a_stream_that_is_cancelled(channel: grpc.Channel, contract: Contract) -> None:
    held = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"1"
        held.wait(20)

    answers = channel.stream_stream("/test.Service/Each")(requests(), timeout=60)
    assert next(answers) == b"11"
    answers.cancel()
    assert contract.gone.acquire(timeout=5)
    held.set()


def test_one_stream_too_many(channel: grpc.Channel, contract: Contract) -> None:
    held = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"1"
        held.wait(30)

    method = channel.stream_stream("/test.Service/Each")
    streams = [method(requests(), timeout=60) for _ in range(MAX_STREAMS)]
    for stream in streams:
        assert next(stream) == b"11"
    with pytest.raises(grpc.RpcError) as caught:
        next(method(requests(), timeout=60))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask(channel, "Echo", b"beside") == b"beside"
    held.set()
    for stream in streams:
        assert list(stream) == []
    assert next(method(iter([b"2"]), timeout=20)) == b"22"


def test_what_is_in_flight_is_answered_at_the_end(host: Any, contract: Contract) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
        call = channel.unary_unary("/test.Service/Wait").future(b"late", timeout=30)
        assert contract.waiting.acquire(timeout=5)
        ending = threading.Thread(target=host.stop, args=(20,))
        ending.start()
        time.sleep(0.5)
        contract.release.set()
        assert call.result() == b"late"
        ending.join(10)
        assert not ending.is_alive()
        assert refusal(channel, "Echo", timeout=3).code() is grpc.StatusCode.UNAVAILABLE


def test_the_end_waits_for_nobody_for_ever(host: Any, contract: Contract) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
        call = channel.unary_unary("/test.Service/Wait").future(b"", timeout=30)
        stream = channel.stream_stream("/test.Service/Each")(iter([]), timeout=30)
        assert contract.waiting.acquire(timeout=5)
        began_s = time.monotonic()
        host.stop(0.5)
        assert time.monotonic() - began_s < 5
        assert call.code() is not grpc.StatusCode.OK
        list(stream)


def test_a_port_in_use(host: Any, kind: str, contract: Contract) -> None:
    with pytest.raises(Unavailable, match="is the port in use"):
        build(kind, contract, f"127.0.0.1:{host.port}").start()


def test_a_unix_socket(kind: str, contract: Contract, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'socket'}"
    host = build(kind, contract, address)
    host.start()
    try:
        with grpc.insecure_channel(address) as channel:
            assert ask(channel, "Look", b"x") == b"x"
            assert contract.peer == "unix"
    finally:
        host.stop(1)


def test_five_thousand_idle_connections(host: Any) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 11_000:
        pytest.skip("this machine allows too few file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    idle: list[socket.socket] = []
    try:
        for _ in range(5000):
            opened = socket.create_connection(("127.0.0.1", host.port), 10)
            opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            idle.append(opened)
        with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            for _ in range(20):
                assert ask(channel, "Echo", b"x", timeout=10) == b"x"
    finally:
        for opened in idle:
            opened.close()


def _errors() -> Sequence[type[CrossfadeError]]:
    """Every error there is, whatever becomes of the tree."""
    found: list[type[CrossfadeError]] = []
    rest = [CrossfadeError]
    while rest:
        kind = rest.pop()
        rest += kind.__subclasses__()
        found.append(kind)
    return [kind for kind in found if hasattr(kind, "code")]


def test_every_code_has_the_same_name_on_the_wire(kind: str) -> None:
    raised: list[CrossfadeError] = []
    for error in _errors():
        made = Internal("x").with_traceback(None)
        made.code = error.code
        raised.append(made)

    def fail(requests: Sequence[Any]) -> Sequence[CrossfadeError]:
        return [raised[int(message)] for message, _ in requests]

    rpc: Rpc[Any, Any] = Rpc("/test.Service/Fail", Access.INFER, bytes, fail, bytes)
    host = HOSTS[kind]([rpc], Contract(), "127.0.0.1:0", threads=2, max_message_bytes=LIMIT)
    host.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            for index, error in enumerate(raised):
                assert refusal(channel, "Fail", b"%d" % index).code().name == error.code.name
    finally:
        host.stop(1)
