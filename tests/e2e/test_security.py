"""TLS, tokens, roles and rates on every port of a real server, with unmodified clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme

from crossfade.serving.cli.main import main
from tests.conftest import ServerProcess

Serve = Callable[..., ServerProcess]
ECHO = "behaviour: echo\ninputs: [{name: x, dtype: INT32, shape: [-1, 2]}]\n"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    version = tmp_path / "models" / "echo" / "1"
    version.mkdir(parents=True)
    (version / "fake.yaml").write_text(ECHO)
    return tmp_path / "models"


@pytest.fixture
def tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, dict[str, str]]:
    """A token file with one token for each role, and the tokens."""
    path = tmp_path / "tokens.yaml"
    made: dict[str, str] = {}
    for role in ("infer", "read", "admin"):
        assert main(["token", "--file", str(path), "--name", role, "--role", role]) == 0
        made[role] = capsys.readouterr().out.strip()
    return path, made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pems(tmp_path: Path, authority: trustme.CA) -> dict[str, Path]:
    """Certificates of the server, of a client, and of a client of another authority."""
    found: dict[str, Path] = {"ca": tmp_path / "ca.pem"}
    authority.cert_pem.write_to_path(found["ca"])
    for name, of in (("server", authority), ("client", authority), ("stranger", trustme.CA())):
        issued = of.issue_cert("127.0.0.1", "localhost")
        found[name] = tmp_path / f"{name}.pem"
        found[f"{name}_key"] = tmp_path / f"{name}.key"
        for index, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(found[name], append=index > 0)
        issued.private_key_pem.write_to_path(found[f"{name}_key"])
    return found


def infer(client: Any, **options: Any) -> Any:
    tensor = triton.InferInput("x", [1, 2], "INT32")
    tensor.set_data_from_numpy(np.array([[1, 2]], dtype=np.int32))
    return client.infer("echo", [tensor], **options).as_numpy("x").tolist()


@contextlib.contextmanager
def refused(status: str) -> Iterator[None]:
    with pytest.raises(triton.InferenceServerException) as caught:
        yield
    assert caught.value.status() == f"StatusCode.{status}"


def get(
    address: str, path: str, token: str | None = None, context: ssl.SSLContext | None = None
) -> tuple[int, dict[str, str]]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = (
        http.client.HTTPSConnection(address, timeout=10, context=context)
        if context
        else http.client.HTTPConnection(address, timeout=10)
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, dict(response.getheaders())


def test_tokens_and_roles(serve: Serve, models: Path, tokens: Any) -> None:
    path, made = tokens
    server = serve(
        *("--model-repository", models, "--tokens", path),
        *("--model-control-mode", "explicit", "--load-model", "echo"),
    )
    headers = {role: {"authorization": f"Bearer {token}"} for role, token in made.items()}
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        with refused("UNAUTHENTICATED"):
            infer(client)
        with refused("UNAUTHENTICATED"):
            infer(client, headers={"authorization": "Bearer nonsense"})
        with refused("PERMISSION_DENIED"):
            infer(client, headers=headers["read"])
        assert infer(client, headers=headers["infer"]) == [[1, 2]]
        with refused("PERMISSION_DENIED"):
            client.get_model_metadata("echo", headers=headers["infer"])
        assert client.get_model_metadata("echo", headers=headers["read"]).name == "echo"
        with refused("PERMISSION_DENIED"):
            client.unload_model("echo", headers=headers["read"])
        client.load_model("echo", headers=headers["admin"])
    assert get(server.http, "/v2/health/ready")[0] == 200
    status, answered = get(server.http, "/v2")
    assert (status, answered["WWW-Authenticate"]) == (401, "Bearer")
    assert get(server.http, "/v2", made["infer"])[0] == 403
    assert get(server.http, "/v2", made["read"])[0] == 200
    assert get(server.metrics, "/metrics")[0] == 401
    assert get(server.metrics, "/metrics", made["read"])[0] == 200
    assert not any(token in "".join(server.raw) for token in made.values())


def test_tls_on_every_port(serve: Serve, models: Path, pems: dict[str, Path]) -> None:
    server = serve(
        *("--model-repository", models),
        *("--tls-cert", pems["server"], "--tls-key", pems["server_key"]),
    )
    with triton.InferenceServerClient(
        server.grpc, ssl=True, root_certificates=str(pems["ca"])
    ) as client:
        assert infer(client) == [[1, 2]]
    with triton.InferenceServerClient(server.grpc) as plain, refused("UNAVAILABLE"):
        infer(plain)
    context = ssl.create_default_context(cafile=str(pems["ca"]))
    assert get(server.http, "/v2", context=context)[0] == 200
    assert get(server.metrics, "/metrics", context=context)[0] == 200
    for address in (server.http, server.metrics):
        with pytest.raises((http.client.HTTPException, OSError)):
            get(address, "/v2/health/live")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert get(server.http, "/v2", context=context)[0] == 200


def test_mutual_tls(serve: Serve, models: Path, pems: dict[str, Path]) -> None:
    server = serve(
        *("--model-repository", models, "--tls-client-ca", pems["ca"]),
        *("--tls-cert", pems["server"], "--tls-key", pems["server_key"]),
    )

    def client(who: str | None) -> Any:
        return triton.InferenceServerClient(
            server.grpc,
            ssl=True,
            root_certificates=str(pems["ca"]),
            certificate_chain=str(pems[who]) if who else None,
            private_key=str(pems[f"{who}_key"]) if who else None,
        )

    with client("client") as known:
        assert infer(known) == [[1, 2]]
    for who in (None, "stranger"):
        with client(who) as unknown, refused("UNAVAILABLE"):
            infer(unknown)
    context = ssl.create_default_context(cafile=str(pems["ca"]))
    with pytest.raises(OSError, match=r"(?i)ssl|reset|closed|disconnected|pipe"):
        get(server.http, "/v2", context=context)
    context.load_cert_chain(pems["client"], pems["client_key"])
    assert get(server.http, "/v2", context=context)[0] == 200


def test_the_command_line_client_over_tls_with_a_token(
    serve: Serve, models: Path, tokens: Any, tmp_path: Path, pems: dict[str, Path]
) -> None:
    path = tmp_path / "both.yaml"
    made = subprocess.run(
        [
            *(sys.executable, "-m", "crossfade", "token", "--file", str(path)),
            *("--name", "me", "--role", "infer", "--role", "read"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    server = serve(
        *("--model-repository", models, "--tokens", path),
        *("--tls-cert", pems["server"], "--tls-key", pems["server_key"]),
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "crossfade", "infer", "echo", "[[1, 2]]", "--json"),
            *("--url", server.grpc, "--tls-ca", str(pems["ca"])),
        ],
        capture_output=True,
        text=True,
        env={"CROSSFADE_TOKEN": made, "PATH": ""},
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["outputs"] == {"x": [[1, 2]]}
    command = [sys.executable, "-m", "crossfade", "models", "--url", server.grpc]
    command += ["--tls-ca", str(pems["ca"])]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": ""}, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "; set the environment variable CROSSFADE_TOKEN" in done.stderr


def test_a_caller_that_calls_too_often(serve: Serve, models: Path) -> None:
    server = serve("--model-repository", models, "--caller-rate", "2")
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        calls = [call.future(b"") for _ in range(12)]
        with pytest.raises(grpc.RpcError) as caught:
            [made.result(10) for made in calls]
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    status, headers = get(server.http, "/v2")
    assert (status, headers["Retry-After"]) == (429, "1")  # the same address, the same caller
    assert get(server.http, "/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--tls-cert", "{server}"], "both --tls-cert and --tls-key"),
        (["--tls-client-ca", "{ca}"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "{server}", "--tls-key", "{client_key}"], "does not belong"),
        (["--tls-cert", "{server_key}", "--tls-key", "{server_key}"], "is not PEM, or not of"),
        (["--tls-cert", "{none}", "--tls-key", "{server_key}"], "No such file"),
        (
            ["--tls-cert", "{server}", "--tls-key", "{server_key}", "--tls-client-ca", "{none}"],
            "No such file",
        ),
        (["--admin-from", "anywhere"], "anywhere needs --tokens or --tls-client-ca"),
        (["--tokens", "{none}"], "cannot be read"),
        (["--caller-rate", "0"], "is not a number of requests"),
    ],
)
def test_what_does_not_start(
    models: Path, pems: dict[str, Path], options: list[str], fault: str
) -> None:
    paths = {**{name: str(path) for name, path in pems.items()}, "none": str(models / "none")}
    command = [sys.executable, "-m", "crossfade", "serve", "--model-repository", str(models)]
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    done = subprocess.run(
        [*command, *ports, *(option.format(**paths) for option in options)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert fault in done.stderr
    assert "Traceback" not in done.stderr
