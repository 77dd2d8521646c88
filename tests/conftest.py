"""What all tests share: the fixtures' folder, and real servers as processes of their own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import gpu

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "fixtures"
DIGITS = ROOT / "examples" / "digits"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: a test marked ``gpu`` needs one."""
    if item.get_closest_marker("gpu") and (reason := gpu.why_not()):
        pytest.skip(reason)


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


class ServerProcess:
    """``crossfade serve`` in a process of its own, on free ports of 127.0.0.1."""

    def __init__(self, *arguments: str, wait_ready: bool = True) -> None:
        command = [sys.executable, "-m", "crossfade", "serve", "--log-format", "json"]
        for port in ("--grpc-port", "--http-port", "--metrics-port"):
            command += [port, "0"]
        self.process = subprocess.Popen(
            [*command, *arguments], stderr=subprocess.PIPE, text=True, cwd=ROOT.parent
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

    def start(*arguments: str | Path, wait_ready: bool = True) -> ServerProcess:
        server = ServerProcess(*map(str, arguments), wait_ready=wait_ready)
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
