"""Every door asks the policy first: shown for each RPC and each route that the server has."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from crossfade.runtimes.core.errors import PermissionDenied
from crossfade.serving.app import server as app
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.config.vertex_config import VertexConfig
from crossfade.serving.transport import native_host
from crossfade.serving.transport.calls import Access, Caller, Policy, Route, Rpc, StreamRpc
from crossfade.serving.transport.grpc_host import GrpcHost
from crossfade.serving.transport.http_host import HttpHost
from crossfade.serving.transport.http_limits import HttpLimits
from crossfade.serving.transport.policy import Guard
from crossfade.serving.transport.tokens import Tokens

Rpcs = Sequence[Rpc[Any, Any] | StreamRpc[Any, Any]]
ADMIN = {
    "/crossfade.Fading/Start",
    "/crossfade.Fading/Act",
    "/v2/fades/(?P<fade>[^/]+)",
    "/v2/fades/(?P<fade>[^/]+)/actions/(?P<action>[a-z]+)",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
    "/inference.GRPCInferenceService/TraceSetting",
    "/inference.GRPCInferenceService/LogSettings",
    "/v2/trace/setting",
    "/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[0-9]+))?/trace/setting",
    "/v2/logging",
    "/v2/repository/models/(?P<model>[^/]+)/load",
    "/v2/repository/models/(?P<model>[^/]+)/unload",
}
PROBES = {
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/",
    "/v2/health/live",
    "/v2/health/ready",
    "/health",
}


class Tables:
    """Stands in for the hosts while a server is put together, and keeps what they are given."""

    def __init__(self) -> None:
        self.rpcs: list[Rpc[Any, Any] | StreamRpc[Any, Any]] = []
        self.routes: list[Route] = []
        self.hosts: list[Sequence[Route]] = []
        self.policies: list[Policy] = []

    def grpc_host(self, _: ServerConfig, rpcs: Rpcs, policy: Policy, tls: object) -> None:
        self.rpcs += rpcs
        self.policies.append(policy)

    def http_host(self, routes: Sequence[Route], policy: Policy, *_: object, **__: object) -> None:
        self.routes += routes
        self.hosts.append(routes)
        self.policies.append(policy)


def composed() -> Tables:
    """What the real composition root hands to its hosts."""
    tables = Tables()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "grpc_host", tables.grpc_host)
        patch.setattr(app, "HttpHost", tables.http_host)
        patch.setattr(app, "_tune_malloc", lambda: None)
        app.Server(ServerConfig((str(Path(__file__).parent),), vertex=VertexConfig()))
    return tables


TABLES = composed()


class DenyAll:
    """A policy that allows nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Access] = []

    def check(self, access: Access, caller: Caller) -> None:
        self.asked.append(access)
        assert caller.peer == "127.0.0.1"
        assert caller.metadata["x-who"] == "me"
        raise PermissionDenied("nobody may do anything")


class Trap:
    """Wraps everything of a table that must not be entered."""

    def __init__(self) -> None:
        self.entered: list[str] = []

    def __call__(self, name: str) -> Any:
        def enter(*_: object) -> Any:
            self.entered.append(name)
            raise AssertionError(name)

        return enter

    def rpc(self, rpc: Rpc[Any, Any] | StreamRpc[Any, Any]) -> Any:
        return type(rpc)(rpc.path, rpc.access, *(self(rpc.path) for _ in range(3)))

    def route(self, route: Route) -> Route:
        return dataclasses.replace(route, handle=self(route.pattern))


@pytest.fixture(scope="module", params=["grpcio", "native"])
def host_of(request: pytest.FixtureRequest) -> Any:
    """Each kind of gRPC host."""
    if request.param == "native" and not native_host.is_installed():
        pytest.skip("crossfade-native is not built: make native-deps")
    return {"grpcio": GrpcHost, "native": native_host.NativeHost}[request.param]


@pytest.fixture(scope="module")
def denied(host_of: Any) -> Iterator[tuple[DenyAll, Trap, grpc.Channel, str]]:
    """All tables on real hosts, behind a policy that denies everything."""
    policy, trap = DenyAll(), Trap()
    rpcs = [trap.rpc(rpc) for rpc in TABLES.rpcs]
    routes = [trap.route(route) for route in TABLES.routes]
    grpc_host = host_of(rpcs, policy, "127.0.0.1:0", threads=2, max_message_bytes=1024)
    http_host = HttpHost(routes, policy, HttpLimits(), host="127.0.0.1", port=0, threads=2)
    with contextlib.ExitStack() as stack:
        for host in (grpc_host, http_host):
            host.start()
            stack.callback(host.stop, 0)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_host.port}"))
        yield policy, trap, channel, f"127.0.0.1:{http_host.port}"


def test_the_tables_are_all_there() -> None:
    assert len(TABLES.rpcs) >= 14
    assert len(TABLES.routes) >= 13
    assert len(TABLES.policies) == 3
    assert all(isinstance(policy, Guard) for policy in TABLES.policies)


@pytest.mark.parametrize("rpc", TABLES.rpcs, ids=lambda rpc: rpc.path)
@pytest.mark.parametrize("message", [b"", b"\xff\xff"], ids=["good", "garbage"])
def test_no_rpc_without_permission(denied: Any, rpc: Any, message: bytes) -> None:
    policy, trap, channel, _ = denied
    metadata = (("x-who", "me"),)
    before = len(policy.asked)
    call = channel.stream_stream(rpc.path)(iter([message]), timeout=10, metadata=metadata)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)  # on the wire a unary call is a stream of one message
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "nobody may do anything"
    assert policy.asked[before:] == [rpc.access]
    assert trap.entered == []


@pytest.mark.parametrize("route", TABLES.routes, ids=lambda r: f"{r.method} {r.pattern}")
@pytest.mark.parametrize("body", [b"", b"{", b"{}"], ids=["no-body", "garbage", "good"])
def test_no_route_without_permission(denied: Any, route: Route, body: bytes) -> None:
    policy, trap, _, address = denied
    before = len(policy.asked)
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(route.method, path_of(route), body or None, {"X-Who": "me"})
        response = connection.getresponse()
        assert response.status == 403
        assert json.loads(response.read()) == {"error": "nobody may do anything"}
    assert policy.asked[before:] == [route.access]
    assert trap.entered == []


@pytest.mark.parametrize(
    "route", [r for r in TABLES.routes if r.method == "GET"], ids=lambda r: r.pattern
)
def test_head_asks_too(denied: Any, route: Route) -> None:
    policy, trap, _, address = denied
    before = len(policy.asked)
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request("HEAD", path_of(route), headers={"X-Who": "me"})
        assert connection.getresponse().status == 403
    assert policy.asked[before:] == [route.access]
    assert trap.entered == []


def path_of(route: Route) -> str:
    """A path that the route's pattern matches."""
    path = re.sub(r"\(\?:([^()]|\([^()]*\))*\)\?", "", route.pattern)
    path = re.sub(r"\(\?P<\w+>[^)]*\)", "a", path).removesuffix("/?").replace("\\", "")
    assert re.fullmatch(route.pattern, path)
    return path


@pytest.fixture(scope="module")
def closed(host_of: Any) -> Iterator[tuple[Trap, grpc.Channel, str]]:
    """All tables on real hosts, behind a guard that knows no token."""
    guard, trap = Guard(Tokens(())), Trap()
    grpc_host = host_of(
        [trap.rpc(rpc) for rpc in TABLES.rpcs if rpc.access is not Access.PROBE],
        *(guard, "127.0.0.1:0"),
        threads=2,
        max_message_bytes=1024,
    )
    routes = [trap.route(route) for route in TABLES.routes if route.access is not Access.PROBE]
    http_host = HttpHost(routes, guard, HttpLimits(), host="127.0.0.1", port=0, threads=2)
    with contextlib.ExitStack() as stack:
        for host in (grpc_host, http_host):
            host.start()
            stack.callback(host.stop, 0)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_host.port}"))
        yield trap, channel, f"127.0.0.1:{http_host.port}"


def test_without_a_token_nothing_but_probes(closed: Any) -> None:
    trap, channel, address = closed
    for rpc in TABLES.rpcs:
        if rpc.access is not Access.PROBE:
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(rpc.path)(iter([b""]), timeout=10))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, rpc.path
    for route in TABLES.routes:
        if route.access is not Access.PROBE:
            connection = http.client.HTTPConnection(address, timeout=10)
            with contextlib.closing(connection):
                connection.request(route.method, path_of(route))
                assert connection.getresponse().status == 401, route.pattern
    assert trap.entered == []


def test_what_everybody_may_ask() -> None:
    """Probes are answered without credentials; a new one has to be added here on purpose."""
    rpcs = {rpc.path for rpc in TABLES.rpcs if rpc.access is Access.PROBE}
    routes = {route.pattern for route in TABLES.routes if route.access is Access.PROBE}
    assert rpcs | routes == PROBES


def test_what_needs_an_administrator() -> None:
    """Whatever changes the server does; a new one has to be added here on purpose."""
    rpcs = {rpc.path for rpc in TABLES.rpcs if rpc.access is Access.ADMIN}
    routes = {route.pattern for route in TABLES.routes if route.access is Access.ADMIN}
    assert rpcs | routes == ADMIN


REDIRECTED = {
    "v2": Access.READ,
    "v2/health/live": Access.PROBE,
    "v2/models/a/infer": Access.INFER,
    "v2/models/a": Access.READ,
    "v2/repository/index": Access.READ,
    "v2/repository/models/a/load": Access.ADMIN,
    "v2/repository/models/a/unload": Access.ADMIN,
    "v2/logging": Access.ADMIN,
    "v2/trace/setting": Access.ADMIN,
    "metrics": Access.READ,
}


def redirected(address: str, path: str) -> tuple[int, Any]:
    headers = {"X-Who": "me", "X-Vertex-Ai-Triton-Redirect": path}
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/predict", b"{}", headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.parametrize(("path", "access"), REDIRECTED.items())
def test_a_redirected_request_is_asked_about_as_its_target(
    denied: Any, path: str, access: Access
) -> None:
    """As Vertex AI's clients send it: once, and nothing is asked about the route it came to."""
    policy, trap, _, address = denied
    before = len(policy.asked)
    assert redirected(address, path) == (403, {"error": "nobody may do anything"})
    assert policy.asked[before:] == [access]
    assert trap.entered == []


def test_a_redirect_to_nowhere(denied: Any) -> None:
    policy, trap, _, address = denied
    before = len(policy.asked)
    assert redirected(address, "v2/nothing")[0] == 404
    assert redirected(address, "predict")[0] == 400
    assert policy.asked[before:] == trap.entered == []


def test_a_redirected_request_needs_its_targets_token(closed: Any) -> None:
    trap, _, address = closed
    for path, access in REDIRECTED.items():
        if access is not Access.PROBE:
            assert redirected(address, path)[0] == 401, path
    assert trap.entered == []


class Someone:
    """A caller at an address, with headers that claim another."""

    metadata: Mapping[str, str | bytes] = {
        "x-forwarded-for": "127.0.0.1",
        "forwarded": "for=127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "host": "localhost",
    }

    def __init__(self, peer: str) -> None:
        self.peer = peer


@pytest.mark.parametrize(
    "peer",
    [
        *("10.0.0.1", "8.8.8.8", "0.0.0.0", "128.0.0.1", "169.254.169.254", "::2", "fe80::1"),
        *("fe80::1%lo", "::ffff:10.0.0.1", "::ffff:7f00:1:1", "", "localhost", "127.0.0.1.evil"),
        *("127.1", "0x7f000001", "2130706433", "unknown", "unix:", "ipv4:127.0.0.1", "\0"),
    ],
)
def test_administration_from_elsewhere(peer: str) -> None:
    policy = Guard()
    with pytest.raises(PermissionDenied):
        policy.check(Access.ADMIN, Someone(peer))
    policy.check(Access.INFER, Someone(peer))
    policy.check(Access.READ, Someone(peer))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "unix"])
def test_administration_from_here(peer: str) -> None:
    for access in Access:
        Guard().check(access, Someone(peer))


def test_a_policy_that_fails_denies(host_of: Any) -> None:
    """An exception of the policy itself is an error for the caller, never a permission."""

    class Broken:
        def check(self, access: Access, caller: Caller) -> None:
            raise ZeroDivisionError

    trap = Trap()
    rpcs = [trap.rpc(rpc) for rpc in TABLES.rpcs if isinstance(rpc, Rpc)]
    host = host_of(rpcs, Broken(), "127.0.0.1:0", threads=2, max_message_bytes=1024)
    host.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{host.port}") as channel:
            for rpc in rpcs:
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(rpc.path)(b"", timeout=10)
                assert caught.value.code() is grpc.StatusCode.INTERNAL
    finally:
        host.stop(0)
    assert trap.entered == []
