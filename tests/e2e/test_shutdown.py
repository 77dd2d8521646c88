"""SIGTERM: not ready at once, what is in flight is answered, exit code 0."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import ServerProcess

SLOW = """
behaviour: sleep
delay_ms: 1500
inputs: [{name: x, dtype: INT32, shape: [-1, 2]}]
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A repository with one model that takes a while."""
    version = tmp_path / "slow" / "1"
    version.mkdir(parents=True)
    (version / "fake.yaml").write_text(SLOW)
    return tmp_path


def ask(address: str) -> Any:
    x = np.array([[1, 2]], dtype=np.int32)
    tensor = triton.InferInput("x", x.shape, "INT32")
    tensor.set_data_from_numpy(x)
    with triton.InferenceServerClient(address) as client:
        return client.infer("slow", [tensor])


def ready_status(address: str) -> int | None:
    """The status of the readiness check; ``None`` if the connection is refused."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status
    except ConnectionError:
        return None
    finally:
        connection.close()


def test_in_flight_requests_are_answered(serve: Callable[..., ServerProcess], slow: Path) -> None:
    server = serve("--model-repository", slow)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(server.grpc))) for _ in range(2)]
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_ready()
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        server.terminate()
        server.wait_for("draining")
        assert ready_status(server.http) in (None, 400)
    for thread in threads:
        thread.join(20)
    assert [answer.get_response().model_name for answer in answers] == ["slow", "slow"]
    assert server.process.wait(20) == 0
    assert not any(line["severity"] == "ERROR" for line in server.lines)


def test_grace_is_bounded(serve: Callable[..., ServerProcess], slow: Path) -> None:
    (slow / "slow" / "1" / "fake.yaml").write_text(SLOW.replace("1500", "20000"))
    # It is still loading: the request of zeros that warms it up takes the 20 s.
    server = serve("--model-repository", slow, "--shutdown-grace-s", "0.5", wait_ready=False)
    server.wait_for("listening")
    began_s = time.monotonic()
    server.terminate()
    assert server.process.wait(20) == 0
    assert time.monotonic() - began_s < 15


def test_a_port_in_use_is_a_clear_error(serve: Callable[..., ServerProcess], slow: Path) -> None:
    first = serve("--model-repository", slow)
    port = first.ports["grpc_port"]
    second = serve("--model-repository", slow, "--grpc-port", str(port), wait_ready=False)
    assert second.process.wait(30) == 1
    second.stop()
    assert f"cannot listen on 127.0.0.1:{port}" in "".join(second.raw)
    assert "Traceback" not in "".join(second.raw)


def test_a_second_signal_ends_it_at_once(serve: Callable[..., ServerProcess], slow: Path) -> None:
    (slow / "slow" / "1" / "fake.yaml").write_text(SLOW.replace("1500", "20000"))
    server = serve("--model-repository", slow, wait_ready=False)
    server.wait_for("listening")
    server.terminate()
    server.wait_for("draining")
    server.terminate()
    assert server.process.wait(3) == 1


def test_idle_streams_do_not_hold_the_end_back(
    serve: Callable[..., ServerProcess], slow: Path
) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    server = serve("--model-repository", slow)
    with grpc.insecure_channel(server.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        began_s = time.monotonic()
        server.terminate()
        assert server.process.wait(20) == 0
        assert time.monotonic() - began_s < 10
