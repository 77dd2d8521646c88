"""A crossfade server with a model on the GPU, called over gRPC on the loopback device."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory

from crossfade.benchmarks.gpu_sessions import (
    INPUT,
    Floats,
    open_crossfade,
    pixels,
    relative_error,
)
from crossfade.benchmarks.load import METHOD_PATH, percentile
from crossfade.benchmarks.models import infer_request
from crossfade.benchmarks.processes import HOST, Launch, ServerError, ServerProcess, free_ports
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.workspace import Workspace
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE

READY_S = 120.0
WARMUP_S = 0.5
CALL_S = 60.0


@dataclass(frozen=True)
class Setup:
    """One way of serving the model: ``model.yaml``'s options and instances, if any."""

    name: str
    provider: str
    instances: int | None = None

    def yaml(self) -> str:
        """The text of ``model.yaml``."""
        lines = [f"options: {{execution_providers: [{self.provider}]}}"]
        lines += [f"instances: {self.instances}"] if self.instances else []
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Load:
    """Connections with one request of so many rows in flight each."""

    rows: int
    connections: int
    shared_memory: bool = False

    @property
    def name(self) -> str:
        """Names its row."""
        where = ", shared memory" if self.shared_memory else ""
        return f"{self.rows} rows, {self.connections} connections{where}"


def closed_loop(port: int, body: Path, begin_s: float, window_s: float) -> list[float]:
    """Calls until the window's end and returns the milliseconds of the calls inside it.

    Runs in a process of its own. ``begin_s`` is the window's start by the monotonic clock, which
    all processes share.
    """
    message = body.read_bytes()
    times: list[float] = []
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        call = channel.unary_unary(METHOD_PATH)
        while (start_s := time.monotonic()) < begin_s + window_s:
            call(message, timeout=CALL_S)
            if start_s >= begin_s and time.monotonic() < begin_s + window_s:
                times.append(1000 * (time.monotonic() - start_s))
    return times


@contextlib.contextmanager
def serving(
    workspace: Workspace, setup: Setup, regions: Mapping[str, tuple[str, int]]
) -> Iterator[int]:
    """A ready server that knows these regions (key and bytes by name); yields its gRPC port."""
    repository = workspace.peer_folder("gpu") / setup.name
    version = repository / "cnn" / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.onnx").write_bytes(workspace.model_file("cnn").read_bytes())
    (version.parent / "model.yaml").write_text(setup.yaml())
    ports = free_ports(3)
    command = [sys.executable, "-m", "crossfade", "serve", "--model-repository", str(repository)]
    command.append("--allow-shared-memory")
    for option, port in zip(("grpc", "http", "metrics"), ports, strict=True):
        command += [f"--{option}-port", str(port)]
    server = ServerProcess(setup.name, Launch(command, ports[0]), workspace.log_file(setup.name))
    server.start()
    try:
        with triton.InferenceServerClient(f"{HOST}:{ports[0]}") as client:
            end_s = time.monotonic() + READY_S
            while not _ready(client):
                if time.monotonic() > end_s or not server.running():
                    raise ServerError(f"not ready: {server.log_tail()}")
                time.sleep(0.05)
            for region, (key, size) in regions.items():
                client.register_system_shared_memory(region, key, size)
        progress(f"{setup.name}: {server.log_tail()[-600:]}")
        yield ports[0]
    finally:
        server.stop()


def _ready(client: Any) -> bool:
    with contextlib.suppress(triton.InferenceServerException):
        return bool(client.is_server_ready()) and bool(client.is_model_ready("cnn"))
    return False


@dataclass(frozen=True)
class Case:
    """One request: a file with the serialised message, and the CPU's answer."""

    body: Path
    expected: Floats

    def error(self, port: int) -> float:
        """How far an answer lies from the CPU's, relative to its largest score."""
        with grpc.insecure_channel(f"{HOST}:{port}") as channel:
            call = channel.unary_unary(METHOD_PATH)
            reply = call(self.body.read_bytes(), timeout=CALL_S)
        raw = service_pb2.ModelInferResponse.FromString(reply).raw_output_contents[0]
        found = np.frombuffer(raw, np.float32).reshape(self.expected.shape)
        return relative_error(found, self.expected)

    def measure(
        self, pool: ProcessPoolExecutor, port: int, connections: int, window_s: float
    ) -> Mapping[str, float]:
        """One window; an answer is checked before and after it."""
        error = self.error(port)
        begin_s = time.monotonic() + WARMUP_S
        clients = [
            pool.submit(closed_loop, port, self.body, begin_s, window_s) for _ in range(connections)
        ]
        times = sorted(ms for client in clients for ms in client.result())
        return {
            "rps": len(times) / window_s,
            "p50_ms": percentile(times, 50),
            "p99_ms": percentile(times, 99),
            "relative_error": max(error, self.error(port)),
        }


def measure_servers(
    workspace: Workspace,
    setups: Sequence[Setup],
    loads: Sequence[Load],
    repetitions: int,
    window_s: float,
) -> Mapping[str, Any]:
    """Requests/s and latencies by setup and load, ``[median, least, most]`` of the repetitions."""
    reference = open_crossfade(workspace.model_file("cnn"), ["cpu"], len(os.sched_getaffinity(0)))
    with contextlib.ExitStack() as stack:
        cases, regions = {}, {}
        for load in loads:
            inputs = {INPUT: pixels(load.rows)}
            request = infer_request("cnn", inputs)
            if load.shared_memory:
                region = f"pixels_{load.rows}"
                regions[region] = stack.enter_context(_shared(region, inputs[INPUT]))
                del request.raw_input_contents[:]
                place = request.inputs[0].parameters
                place["shared_memory_region"].string_param = region
                place["shared_memory_byte_size"].int64_param = inputs[INPUT].nbytes
            body = workspace.root / "requests" / f"cnn_{load.rows}_{load.shared_memory}.body"
            body.write_bytes(request.SerializeToString())
            (expected,) = reference.run(inputs, DEFAULT_SIGNATURE, ()).values()
            cases[load] = Case(body, expected)
        most = max(load.connections for load in loads)
        spawn = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(most, spawn))
        result: dict[str, Any] = {}
        for setup in setups:
            with serving(workspace, setup, regions) as port:
                result[setup.name] = {
                    load.name: summary(
                        case.measure(pool, port, load.connections, window_s)
                        for _ in range(repetitions)
                    )
                    for load, case in cases.items()
                }
        return result


@contextlib.contextmanager
def _shared(region: str, array: Floats) -> Iterator[tuple[str, int]]:
    """The array in POSIX shared memory; yields its key and size in bytes."""
    key = f"/cf_client_bench_{region}"
    handle = shared_memory.create_shared_memory_region(region, key, array.nbytes)
    try:
        shared_memory.set_shared_memory_region(handle, [array])
        yield key, array.nbytes
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def summary(windows: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """``[median, least, most]`` of each figure, and the largest error."""
    measured = list(windows)
    columns = {name: [window[name] for window in measured] for name in measured[0]}
    error = max(columns.pop("relative_error"))
    spread = {name: [statistics.median(v), min(v), max(v)] for name, v in columns.items()}
    return {**spread, "relative_error": error}
