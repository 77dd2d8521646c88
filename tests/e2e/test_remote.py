"""Models of other servers: a real server behind another one, over each of the protocols."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import trustme
import yaml

from crossfade.benchmarks.processes import free_ports
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.serving.cli.main import main
from tests.conftest import ServerProcess
from tests.e2e.differential import servers
from tests.runtimes import onnx_models

PREDICT = "/v1/projects/p/locations/r/endpoints/7:predict"
PROTOCOLS = (
    "open_inference_grpc",
    "open_inference_http",
    "tensorflow_serving_grpc",
    "tensorflow_serving_rest",
    "vertex",
)
# Every dtype; BYTES has names that say whether it is text, as JSON contracts ask.
TYPES = {
    **{name.lower(): name for name in NUMPY if name != "BYTES"},
    "text": "BYTES",
    "any_bytes": "BYTES",
}
ON_VERTEX = ("types", "affine")
TRITONS = tuple(f"echo_{dtype}" for dtype in NUMPY)
KEY_FILES = (("cert", "pem"), ("key", "key"))


def far_repository(root: Path) -> Path:
    write(root / "affine" / "1" / "model.onnx", onnx_models.affine())
    inputs = [{"name": name, "dtype": dtype, "shape": [-1, 2]} for name, dtype in TYPES.items()]
    write(root / "types" / "1" / "fake.yaml", yaml.safe_dump({"inputs": inputs}).encode())
    slow = {
        "delay_ms": 3000,
        "delay_when": {"input": "x", "value": 1},
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}],
    }
    write(root / "slow" / "1" / "fake.yaml", yaml.safe_dump(slow).encode())
    return root


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def start_far(repository: Path, *arguments: str) -> ServerProcess:
    return ServerProcess("--model-repository", str(repository), *arguments)


def declared(model: str) -> dict[str, Any]:
    """What has to be said to Vertex AI's contract, which says nothing itself."""
    if model == "affine":
        names = {"x": "FP32"}, {"y": "FP32", "m": "FP32"}
        return {
            side: [{"name": n, "dtype": d, "shape": [-1, 3]} for n, d in found.items()]
            for side, found in zip(("inputs", "outputs"), names, strict=True)
        }
    tensors = [{"name": n, "dtype": d, "shape": [-1, 2]} for n, d in TYPES.items()]
    inputs = [{**t, "encoding": "b64"} if t["name"] == "any_bytes" else t for t in tensors]
    return {"inputs": inputs, "outputs": tensors}


def place(far: ServerProcess, protocol: str, model: str, **more: Any) -> dict[str, Any]:
    url = far.grpc if protocol.endswith("grpc") else f"http://{far.http}"
    options = {"protocol": protocol, "url": url, "model": model, **more}
    if protocol == "vertex":
        options |= {"url": f"{url}{PREDICT}", **declared(model)}
    return options


def member(repository: Path, name: str, options: dict[str, Any], **more: Any) -> None:
    config = {"platform": "remote", "options": options, **more}
    write(repository / name / "model.yaml", yaml.safe_dump(config).encode())


def ask(server: str, model: str, inputs: dict[str, np.ndarray], **more: Any) -> Any:
    dtypes = {name: TYPES.get(name, "FP32") for name in inputs}
    asked = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, list(array.shape), dtypes[name])
        tensor.set_data_from_numpy(array)
        asked.append(tensor)
    with triton.InferenceServerClient(server) as client:
        return client.infer(model, asked, **more)


def raw(answer: Any) -> dict[str, bytes]:
    """The outputs' bytes by name."""
    response = answer.get_response()
    names = [output.name for output in response.outputs]
    return dict(zip(names, response.raw_output_contents, strict=True))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = start_far(far_repository(tmp_path_factory.mktemp("far")))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def far_on_vertex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerProcess]]:
    """A server answers one model on Vertex AI: one for each."""
    root = far_repository(tmp_path_factory.mktemp("vertex"))
    servers = {
        model: ServerProcess(
            *("--model-repository", str(root), "--host", "127.0.0.1"),
            *("--vertex-ai-default-model", model),
            environment={"AIP_MODE": "PREDICTION", "AIP_PREDICT_ROUTE": PREDICT},
        )
        for model in ON_VERTEX
    }
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="module")
def near(
    far: ServerProcess,
    far_on_vertex: dict[str, ServerProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("near")
    for model, protocol in itertools.product(ON_VERTEX, PROTOCOLS):
        server = far_on_vertex[model] if protocol == "vertex" else far
        member(root, f"{model}.{protocol}", place(server, protocol, model))
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


def random_types(random: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, dtype in TYPES.items():
        kind = NUMPY[dtype].kind
        if dtype == "BYTES":
            texts = np.empty((rows, 2), object)
            texts.reshape(-1)[:] = (
                [f"é{n}\n\0".encode() for n in random.integers(0, 99, rows * 2)]
                if name == "text"
                else [random.bytes(n) for n in random.integers(0, 9, rows * 2)]
            )
            found[name] = texts
        elif kind == "b":
            found[name] = random.random((rows, 2)) < 0.5
        elif kind in "iu":
            limits = np.iinfo(NUMPY[dtype])
            found[name] = random.integers(
                limits.min, limits.max, (rows, 2), NUMPY[dtype], endpoint=True
            )
        else:
            found[name] = (random.normal(size=(rows, 2)) * 100).astype(NUMPY[dtype])
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_answers_to_the_bit(
    far: ServerProcess, near: ServerProcess, protocol: str
) -> None:
    random = np.random.default_rng(8)
    for rows in (1, 3, 17):
        x = {"x": (random.normal(size=(rows, 3)) * 1e-3).astype(np.float32)}
        assert raw(ask(near.grpc, f"affine.{protocol}", x)) == raw(ask(far.grpc, "affine", x))
        inputs = random_types(random, rows)
        direct = raw(ask(far.grpc, "types", inputs))
        assert raw(ask(near.grpc, f"types.{protocol}", inputs)) == direct
        assert set(direct) == set(TYPES)


def test_nothing_is_sent_that_nobody_asked_for(tmp_path: Path) -> None:
    """No warm-up of zeros and no measuring: somebody pays for each of these runs."""
    far = start_far(far_repository(tmp_path / "far"))
    member(tmp_path / "near", "m", place(far, "open_inference_grpc", "affine"))
    near = ServerProcess("--model-repository", str(tmp_path / "near"))
    with triton.InferenceServerClient(far.grpc) as client:
        (counted,) = client.get_inference_statistics("affine").model_stats
        assert counted.inference_count == 0
        ask(near.grpc, "m", {"x": np.float32([[1, 2, 3]])})
        (counted,) = client.get_inference_statistics("affine").model_stats
        assert counted.inference_count == 1
    for server in (near, far):
        assert server.stop() == 0


def test_a_remote_version_and_its_successor_are_one_model(
    far: ServerProcess, tmp_path: Path
) -> None:
    """What cannot be exported is version 1, what was trained to replace it version 2."""
    folder = tmp_path / "flowers"
    options = place(far, "open_inference_grpc", "affine")
    write(folder / "1" / "remote.yaml", yaml.safe_dump(options).encode())
    write(folder / "2" / "model.onnx", onnx_models.affine())
    write(folder / "model.yaml", b"version_policy: all\nlabels: {stable: 1, canary: 2}\n")
    near = ServerProcess("--model-repository", str(tmp_path))
    x = {"x": np.float32([[1, 2, 3]])}
    with triton.InferenceServerClient(near.grpc) as client:
        platforms = [client.get_model_metadata("flowers", version).platform for version in "12"]
    assert platforms == ["remote", "onnxruntime_onnx"]
    answers = [
        raw(ask(near.grpc, "flowers", x, parameters={"version_label": label}))
        for label in ("stable", "canary")
    ]
    assert answers[0] == answers[1]
    assert near.stop() == 0


def test_metadata_is_the_far_models(far: ServerProcess, near: ServerProcess) -> None:
    with (
        triton.InferenceServerClient(far.grpc) as there,
        triton.InferenceServerClient(near.grpc) as here,
    ):
        for model, protocol in itertools.product(ON_VERTEX, PROTOCOLS):
            direct = there.get_model_metadata(model)
            through = here.get_model_metadata(f"{model}.{protocol}")
            for side in ("inputs", "outputs"):
                found = [
                    sorted((t.name, t.datatype, tuple(t.shape)) for t in getattr(metadata, side))
                    for metadata in (direct, through)
                ]
                assert found[0] == found[1]


def test_deadlines_go_with_the_request(far: ServerProcess, tmp_path: Path) -> None:
    protocols = PROTOCOLS[:4]
    for protocol in protocols:
        member(tmp_path, protocol, place(far, protocol, "slow"))
    own = place(far, "open_inference_http", "slow", timeout_ms=300)
    member(tmp_path, "own", own)
    near = ServerProcess("--model-repository", str(tmp_path))
    x = {"x": np.float32([1])}
    for protocol in protocols:
        began_s = time.monotonic()
        with pytest.raises(triton.InferenceServerException) as failed:
            ask(near.grpc, protocol, x, client_timeout=0.5)
        assert failed.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        assert time.monotonic() - began_s < 2.5
    with pytest.raises(triton.InferenceServerException, match="gave no answer in time") as failed:
        ask(near.grpc, "own", x)
    assert failed.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    # The waits are over in the server, too: it ends at once.
    began_s = time.monotonic()
    assert near.stop() == 0
    assert time.monotonic() - began_s < 2.5


@pytest.mark.parametrize("protocol", PROTOCOLS[:4])
def test_a_far_server_is_killed_and_comes_back(tmp_path: Path, protocol: str) -> None:
    """Meanwhile clients are told UNAVAILABLE and nothing else; then it goes on by itself."""
    repository = far_repository(tmp_path / "far")
    grpc_port, http_port = free_ports(2)
    ports = ("--grpc-port", str(grpc_port), "--http-port", str(http_port))
    far = start_far(repository, *ports)
    rule = {"failures": 5, "pause_ms": 200}
    member(tmp_path / "near", "m", place(far, protocol, "affine", breaker=rule))
    near = ServerProcess("--model-repository", str(tmp_path / "near"))
    outcomes: list[tuple[float, str]] = []
    over = threading.Event()
    expected = {"y": np.float32([3, 5, 7]).tobytes(), "m": np.float32([2, 4, 6]).tobytes()}

    def client() -> None:
        while not over.is_set():
            try:
                answer = raw(ask(near.grpc, "m", {"x": np.float32([[1, 2, 3]])}))
                outcomes.append((time.monotonic(), "OK" if answer == expected else "wrong"))
            except triton.InferenceServerException as error:
                outcomes.append((time.monotonic(), str(error.status())))
                time.sleep(0.01)

    def wait_for(outcome: str, count: int) -> None:
        after_s, until_s = time.monotonic(), time.monotonic() + 30
        while sum(o == outcome for s, o in list(outcomes) if s > after_s) < count:
            assert time.monotonic() < until_s, outcomes[-3:]
            time.sleep(0.02)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        for _ in range(2):
            wait_for("OK", 20)
            far.process.send_signal(signal.SIGKILL)
            far.stop()
            wait_for("StatusCode.UNAVAILABLE", 20)
            far = start_far(repository, *ports)
            wait_for("OK", 20)
    finally:
        over.set()
        for thread in clients:
            thread.join(30)
        far.stop()
    assert {outcome for _, outcome in outcomes} == {"OK", "StatusCode.UNAVAILABLE"}
    assert near.stop() == 0


def test_a_member_that_is_declared_waits_for_its_server(tmp_path: Path) -> None:
    far = start_far(far_repository(tmp_path / "far"))
    options = place(far, "open_inference_http", "affine")
    far.stop()
    member(tmp_path / "near", "declared", {**options, **declared("affine")})
    member(tmp_path / "near", "asked", options)
    near = ServerProcess("--model-repository", str(tmp_path / "near"))
    x = {"x": np.float32([[1, 2, 3]])}
    with pytest.raises(triton.InferenceServerException, match="is not available"):
        ask(near.grpc, "declared", x)
    with triton.InferenceServerClient(near.grpc) as client:
        index = {m.name: m for m in client.get_model_repository_index().models}
    assert index["declared"].state == "READY"
    assert "with inputs and outputs declared it is not needed" in index["asked"].reason
    assert "127.0.0.1" not in index["asked"].reason
    port = far.ports["http_port"]
    far = start_far(tmp_path / "far", "--http-port", str(port))
    time.sleep(1)
    assert raw(ask(near.grpc, "declared", x))["m"] == np.float32([2, 4, 6]).tobytes()
    for server in (near, far):
        assert server.stop() == 0


def test_tls_client_certificates_and_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, issuer in (("far", authority), ("near", authority), ("other", stranger)):
        issued = issuer.issue_cert("localhost")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    stranger.cert_pem.write_to_path(tmp_path / "other_ca.pem")
    named = ("--name", "near", "--role", "infer", "--role", "read")
    assert main(["token", "--file", str(tmp_path / "tokens.yaml"), *named]) == 0
    write(tmp_path / "token", capsys.readouterr().out.encode())
    write(tmp_path / "wrong_token", b"nobody's")
    far = start_far(
        far_repository(tmp_path / "far"),
        *("--tls-cert", str(tmp_path / "far.pem"), "--tls-key", str(tmp_path / "far.key")),
        *("--tls-client-ca", str(tmp_path / "ca.pem"), "--tokens", str(tmp_path / "tokens.yaml")),
    )
    right = {
        "tls": {
            **{f"{kind}_file": str(tmp_path / f"near.{end}") for kind, end in KEY_FILES},
            "ca_file": str(tmp_path / "ca.pem"),
            "server_name": "localhost",
        },
        "token_file": str(tmp_path / "token"),
    }
    wrong = {
        "no_client": {**right, "tls": {**right["tls"], "cert_file": None, "key_file": None}},
        "other_client": {
            **right,
            "tls": {
                **right["tls"],
                **{f"{kind}_file": str(tmp_path / f"other.{end}") for kind, end in KEY_FILES},
            },
        },
        "other_ca": {**right, "tls": {**right["tls"], "ca_file": str(tmp_path / "other_ca.pem")}},
        "other_name": {**right, "tls": {**right["tls"], "server_name": "example.com"}},
        "other_token": {**right, "token_file": str(tmp_path / "wrong_token")},
    }
    for protocol in PROTOCOLS[:4]:
        url = far.grpc if protocol.endswith("grpc") else f"https://{far.http}"
        options = {"protocol": protocol, "url": url, "model": "affine"}
        member(tmp_path / "near", f"{protocol}.right", {**options, **right})
        for name, more in wrong.items():
            member(tmp_path / "near", f"{protocol}.{name}", {**options, **more})
    near = ServerProcess("--model-repository", str(tmp_path / "near"))
    with triton.InferenceServerClient(near.grpc) as client:
        index = {m.name: m for m in client.get_model_repository_index().models}
    for name, found in index.items():
        assert found.state == ("READY" if name.endswith("right") else "UNAVAILABLE"), name
        for secret in (str(tmp_path), "127.0.0.1", "nobody's"):
            assert secret not in found.reason
    for protocol in PROTOCOLS[:4]:
        answer = raw(ask(near.grpc, f"{protocol}.right", {"x": np.float32([[1, 2, 3]])}))
        assert answer["m"] == np.float32([2, 4, 6]).tobytes()
    log = "".join(near.raw)
    assert "nobody's" not in log
    for server in (near, far):
        assert server.stop() == 0


@pytest.fixture(scope="module")
def triton_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, ServerProcess]]:
    """A real Triton, and a server that has its models over both of its protocols."""
    root = tmp_path_factory.mktemp("triton")
    with servers.triton(root) as (grpc, http):
        for name in TRITONS:
            for protocol, url in zip(PROTOCOLS, (grpc, f"http://{http}"), strict=False):
                options = {"protocol": protocol, "url": url, "model": name, "timeout_ms": 20_000}
                member(root / "near", f"{name}.{protocol}", options)
        near = ServerProcess("--model-repository", str(root / "near"))
        yield grpc, near
        assert near.stop() == 0


@pytest.mark.parametrize("protocol", PROTOCOLS[:2])
def test_a_real_triton(triton_behind: tuple[str, ServerProcess], protocol: str) -> None:
    there, near = triton_behind
    random = np.random.default_rng(4)
    types = random_types(random, 3)
    for name in TRITONS:
        dtype = name.removeprefix("echo_")
        x = {"x": types["any_bytes" if dtype == "BYTES" else dtype.lower()]}
        if dtype == "BF16":
            continue  # Triton's Python backend does not know it
        tensor = triton.InferInput("x", [3, 2], dtype)
        tensor.set_data_from_numpy(x["x"])
        with (
            triton.InferenceServerClient(there) as direct,
            triton.InferenceServerClient(near.grpc) as through,
        ):
            found = [
                raw(client.infer(model, [tensor]))
                for client, model in ((direct, name), (through, f"{name}.{protocol}"))
            ]
        assert found[0] == found[1], name


def test_what_a_real_triton_refuses(triton_behind: tuple[str, ServerProcess]) -> None:
    _, near = triton_behind
    x = triton.InferInput("x", [9, 2], "FP32")  # its configuration says 8
    x.set_data_from_numpy(np.zeros((9, 2), np.float32))
    for protocol in PROTOCOLS[:2]:
        with (
            triton.InferenceServerClient(near.grpc) as client,
            pytest.raises(triton.InferenceServerException, match="batch-size must be <= 8") as no,
        ):
            client.infer(f"echo_FP32.{protocol}", [x])
        assert no.value.status() == "StatusCode.INVALID_ARGUMENT"
