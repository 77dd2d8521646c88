"""The pair behind a server: Crossfade's ensembles and Triton's, over gRPC, one server at a time."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tritonclient.grpc as client

from crossfade.benchmarks import ensemble_pair as pair
from crossfade.benchmarks.framing import frame
from crossfade.benchmarks.load import Load, percentile, run_window
from crossfade.benchmarks.models import infer_request
from crossfade.benchmarks.peers.triton import CONFIG, MODEL_PY, Triton
from crossfade.benchmarks.processes import (
    HOST,
    Launch,
    ServerError,
    ServerProcess,
    cpu_between_us,
    free_ports,
)
from crossfade.benchmarks.session_settings import PARALLEL_RUNS
from crossfade.benchmarks.workspace import Workspace

CONCURRENCY: Final = 8
START_S: Final = 90.0
_TENSORS: Final = """\
input [{ name: "pixels", data_type: TYPE_FP32, dims: [3, 224, 224] }]
output [{ name: "scores", data_type: TYPE_FP32, dims: [1000] }]"""
_AVERAGE_PY: Final = "from crossfade.benchmarks.programs.triton_average import TritonPythonModel\n"
_AVERAGE: Final = """\
name: "average"
backend: "python"
max_batch_size: 8
input [
  { name: "FIRST", data_type: TYPE_FP32, dims: [1000] },
  { name: "SECOND", data_type: TYPE_FP32, dims: [1000] }
]
output [{ name: "scores", data_type: TYPE_FP32, dims: [1000] }]
instance_group [{ kind: KIND_CPU, count: 1 }]
parameters { key: "weights", value: { string_value: "[0.3, 0.7]" } }
"""
_ENSEMBLE: Final = """\
name: "pair"
platform: "ensemble"
max_batch_size: 8
input [{ name: "pixels", data_type: TYPE_FP32, dims: [3, 224, 224] }]
output [{ name: "scores", data_type: TYPE_FP32, dims: [1000] }]
ensemble_scheduling {
  step [
    { model_name: "automl", model_version: -1,
      input_map { key: "pixels", value: "pixels" },
      output_map { key: "scores", value: "first" } },
    { model_name: "custom", model_version: -1,
      input_map { key: "pixels", value: "pixels" },
      output_map { key: "scores", value: "second" } },
    { model_name: "average", model_version: -1,
      input_map { key: "FIRST", value: "first" },
      input_map { key: "SECOND", value: "second" },
      output_map { key: "scores", value: "scores" } }
  ]
}
"""


def _triton(workspace: Workspace, models: Path) -> Launch:
    workspace.link_package()
    repository = workspace.peer_folder("triton") / "pair"
    shutil.rmtree(repository, ignore_errors=True)
    for name in pair.MEMBERS:
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(MODEL_PY)
        config = CONFIG.format(
            model=name,
            max_batch_size=8,
            tensors=_TENSORS,
            instances=PARALLEL_RUNS,
            onnx_file=pair.model_file(models, name).resolve(),
        )
        (repository / name / "config.pbtxt").write_text(config)
    for name, config in {"average": _AVERAGE, "pair": _ENSEMBLE}.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    (repository / "average" / "1" / "model.py").write_text(_AVERAGE_PY)
    return Triton().serve(workspace, repository, free_ports(3))


def _crossfade(models: Path, ensemble: str) -> Launch:
    repository = models.parent / f"served-{ensemble}"
    shutil.rmtree(repository, ignore_errors=True)
    for name in (*pair.MEMBERS, ensemble):
        shutil.copytree(models / name, repository / name, copy_function=os.link)
    grpc_port, http_port, metrics_port = free_ports(3)
    command = [sys.executable, "-m", "crossfade", "serve", "--model-repository", str(repository)]
    command += ["--host", HOST, "--grpc-port", str(grpc_port), "--http-port", str(http_port)]
    return Launch([*command, "--metrics-port", str(metrics_port)], grpc_port)


def launch(server: str, workspace: Workspace, models: Path) -> tuple[Launch, str]:
    """How to start a server, and the ensemble's name in it."""
    if server == "triton":
        return _triton(workspace, models), "pair"
    ensemble = server.removeprefix("crossfade-")
    return _crossfade(models, ensemble), ensemble


def measure(
    server: str, workspace: Workspace, models: Path, window_s: float
) -> Mapping[str, float]:
    """Starts a server, checks its answer, loads it and stops it.

    Raises:
        ServerError: it does not start, or gives a wrong answer.
    """
    how, ensemble = launch(server, workspace, models)
    process = ServerProcess(server, how, workspace.log_file(f"ensemble-{server}"))
    process.start()
    try:
        _wait(process, ensemble)
        if ensemble == "fused":
            _wait_fused(process, workspace.log_file(f"ensemble-{server}"))
        _check(process, ensemble, pair.expected(models))
        file = workspace.root / "requests" / f"{server}.grpc"
        file.parent.mkdir(parents=True, exist_ok=True)
        request = infer_request(ensemble, {pair.INPUT: pair.picture()})
        file.write_bytes(frame(request.SerializeToString()))
        load = Load(process.grpc_port, file, CONCURRENCY, 1.5, window_s)
        window = run_window(load, lambda: None, process.sample_cpu)
        _check(process, ensemble, pair.expected(models))
        return {
            "requests_per_s": window.requests / window.duration_s,
            "p50_ms": percentile(window.latencies_us, 50) / 1000,
            "p99_ms": percentile(window.latencies_us, 99) / 1000,
            "cpu_ms": cpu_between_us(window.before, window.after) / 1000 / window.requests,
        }
    finally:
        process.stop()


def ratios(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """What Crossfade's ensembles do beside Triton's, from medians over the servers' lives.

    Throughput by throughput, and under ``_cpu`` requests for the same CPU time, which other
    programs on the machine change less.
    """

    def median(server: str, key: str) -> float:
        return statistics.median(row[key] for row in rows[server])

    found: dict[str, float] = {}
    for name, ensemble in (("pair", "fused"), ("unfused_pair", "unfused")):
        ours = f"crossfade-{ensemble}"
        if rows.get(ours) and rows.get("triton"):
            rates = median(ours, "requests_per_s"), median("triton", "requests_per_s")
            found[f"{name}_vs_triton"] = rates[0] / rates[1]
            cpu_ms = median(ours, "cpu_ms"), median("triton", "cpu_ms")
            found[f"{name}_vs_triton_cpu"] = cpu_ms[1] / cpu_ms[0]
    return found


def _wait(process: ServerProcess, model: str) -> None:
    until_s = time.monotonic() + START_S
    with client.InferenceServerClient(f"{HOST}:{process.grpc_port}") as asked:
        while True:
            try:
                if asked.is_model_ready(model):
                    return
            except client.InferenceServerException:
                pass
            if not process.running() or time.monotonic() > until_s:
                raise ServerError(f"{process.name} does not get ready: {process.log_tail()}")
            time.sleep(0.2)


def _wait_fused(process: ServerProcess, log: Path) -> None:
    until_s = time.monotonic() + START_S
    while "members fused" not in log.read_text(errors="replace"):
        if time.monotonic() > until_s:
            raise ServerError(f"the members were not fused: {process.log_tail()}")
        time.sleep(0.2)


def _check(process: ServerProcess, model: str, wanted: Any) -> None:
    with client.InferenceServerClient(f"{HOST}:{process.grpc_port}") as asked:
        tensor = client.InferInput(pair.INPUT, [1, 3, 224, 224], "FP32")
        tensor.set_data_from_numpy(pair.picture())
        got = asked.infer(model, [tensor]).as_numpy(pair.OUTPUT)
    if not np.allclose(got, wanted, atol=1e-5):
        raise ServerError(f"{process.name} gives a wrong answer")
