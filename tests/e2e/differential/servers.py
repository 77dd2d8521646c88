"""Both servers of the differential test, over the same models."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossfade.benchmarks.peers.triton import Triton
from crossfade.benchmarks.processes import HOST, ServerError, ServerProcess, free_ports
from crossfade.benchmarks.workspace import Workspace
from tests.conftest import ROOT
from tests.conftest import ServerProcess as Crossfade
from tests.e2e.differential import models

START_TIMEOUT_S = 120.0
# Where `make triton` puts it; another place can be named, for checkouts that share one.
WORKSPACE = Workspace(Path(os.environ.get("CROSSFADE_BENCH_WORKSPACE", ROOT / ".bench")))
SWITCHED_ON = ("--triton-compat", "--allow-shared-memory")
CONTROL = ("--model-control-mode=explicit", "--load-model=*")


@contextlib.contextmanager
def triton(root: Path) -> Iterator[tuple[str, str]]:
    """A real Triton; yields where its gRPC and HTTP are. Skips where none is installed."""
    peer = Triton()
    if not peer.installed(WORKSPACE):
        pytest.skip("no Triton is installed: make triton")
    grpc_port, http_port, metrics_port = free_ports(3)
    repository = models.write(root / "triton", "python")
    options = (*CONTROL, "--exit-on-error=false")
    ports = (grpc_port, http_port, metrics_port)
    launch = peer.serve(WORKSPACE, repository, ports, *options)
    process = ServerProcess("triton", launch, root / "triton.log")
    process.start()
    try:
        _wait_ready(process, http_port)
        yield f"{HOST}:{grpc_port}", f"{HOST}:{http_port}"
    finally:
        with contextlib.suppress(ServerError):
            process.stop()


def _wait_ready(process: ServerProcess, port: int) -> None:
    """Waits until the models have been tried; one of them fails, so it is never ready."""
    until_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until_s and process.running():
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/v2/health/live")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    pytest.fail(f"Triton did not start: {process.log_tail()}")


@contextlib.contextmanager
def crossfade(root: Path) -> Iterator[tuple[str, str]]:
    """This project's server; yields where its gRPC and HTTP are."""
    repository = models.write(root / "crossfade", "")
    server = Crossfade("--model-repository", str(repository), *CONTROL, *SWITCHED_ON)
    yield server.grpc, server.http
    assert server.stop() == 0
