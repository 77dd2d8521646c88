"""What all tests share: the fixtures' folder, and real servers as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import edge_tpu as edge_tpu_delegate
from tests import gpu

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "fixtures"
DIGITS = ROOT / "examples" / "digits"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: a test marked ``gpu`` or ``edgetpu`` needs one."""
    for marker, why_not in (("gpu", gpu.why_not), ("edgetpu", edge_tpu_delegate.why_not)):
        if item.get_closest_marker(marker) and (reason := why_not()):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def edge_tpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of a delegate that claims nodes as the Edge TPU's does."""
    return edge_tpu_delegate.build(tmp_path_factory.mktemp("delegate"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Models and data made by others; a clone of the project alone does not have them."""
    if not SHARED.is_dir():
        pytest.skip("the shared fixtures are not here")
    return SHARED


@pytest.fixture(scope="session")
def digits() -> Path:
    """The sample repository of this project."""
    return DIGITS


@pytest.fixture(scope="session")
def clients() -> Path:
    """The programs of an environment without TensorFlow, which `make test` has made."""
    found = ROOT / ".venv-clients"
    if not (found / ".ready").exists():
        pytest.skip("make .venv-clients/.ready makes the clients that this test needs")
    return found / "bin"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--transport",
        choices=("auto", "native", "grpcio"),
        default="auto",
        help="which host the servers of these tests use for gRPC",
    )
    parser.addoption(
        "--seconds", type=int, default=5, help="how long each program of tests/native runs, about"
    )


def pytest_configure(config: pytest.Config) -> None:
    ServerProcess.transport = config.getoption("--transport")


SERVE = (
    *(sys.executable, "-m", "crossfade", "serve", "--log-format", "json"),
    *("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
    # What the tests serve is made anew for each, and would be tried each time.
    *("--probe", "never"),
)


# Options of servers that the native transport cannot be.
_NOT_NATIVE = ("--tls-cert",)


class ServerProcess:
    """A server in a process of its own: ``crossfade serve`` on free ports of 127.0.0.1."""

    transport = "auto"

    def __init__(
        self,
        *arguments: str,
        wait_ready: bool = True,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = SERVE,
    ) -> None:
        tls = any(name in arguments for name in _NOT_NATIVE)
        chosen = self.transport == "grpcio" or (self.transport == "native" and not tls)
        if chosen and command is SERVE:
            command = (*command, "--transport", self.transport)
        self.process = subprocess.Popen(
            [*command, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT.parent,
            env={**os.environ, **(environment or {})},
        )
        self.lines: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ports: dict[str, int] = {}
        if wait_ready:
            ready = self.wait_for("ready", 60)
            self.ports = {k: v for k, v in ready.items() if k.endswith("_port")}

    def _read(self) -> None:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self._changed:
                self.raw.append(text)
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, message: str, timeout_s: float = 30, **extra: Any) -> dict[str, Any]:
        """Waits for a log line with that message and these fields."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self.lines:
                    if line["message"] == message and extra.items() <= line.items():
                        return line
                if self.process.poll() is not None and not self._reader.is_alive():
                    pytest.fail(f"the server ended before '{message}': {''.join(self.raw)}")
                if time.monotonic() > until:
                    pytest.fail(f"no '{message}' in {timeout_s} s: {''.join(self.raw)[-2000:]}")
                self._changed.wait(0.2)

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports['grpc_port']}"

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports['http_port']}"

    @property
    def metrics(self) -> str:
        return f"127.0.0.1:{self.ports['metrics_port']}"

    @property
    def rss_mib(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and the exit code; kills what does not end in time."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(5)
        finally:
            self._reader.join(5)
            assert self.process.stderr is not None
            self.process.stderr.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers with any arguments; stops them all at the end."""
    started: list[ServerProcess] = []

    def start(*arguments: str | Path, **settings: Any) -> ServerProcess:
        server = ServerProcess(*map(str, arguments), **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def triton_server(shared: Path) -> Iterator[ServerProcess]:
    """One server over Triton's sample repository, for tests that leave it as it is."""
    server = ServerProcess("--model-repository", str(shared / "triton" / "model_repository"))
    yield server
    assert server.stop() == 0
