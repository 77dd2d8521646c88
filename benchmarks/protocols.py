"""One server, the same tensors: what each way of sending them costs.

Run it with ``make bench-protocols``. The same crossfade process answers all variants in turn, in
every repetition in another order, so that ratios compare windows that lie seconds apart:

    grpc         ModelInfer with raw contents in the message
    grpc_shm     ModelInfer with the picture in system shared memory
    http_binary  POST /v2/models/M/infer with binary tensors, HTTP/1.1
    tfs          PredictionService.Predict with tensor_content

The load is h2load's, one request in flight a connection. Before and after each window the same
request is sent once more and its answer compared with bare ONNX Runtime's; the bytes of all replies
must be their number times the size of a right one. The last line of standard output is one JSON
object, medians over repetitions: ``tfs_vs_v2`` and ``shm_cpu_vs_message`` are ratios of server CPU
a request (the former of the small or the large tensors, whichever is worse),
``http_binary_vs_grpc`` of requests/s (grpc over http) for the picture.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import shared_memory

from crossfade.benchmarks.framing import frame
from crossfade.benchmarks.load import (
    GRPC_HEADERS,
    METHOD_PATH,
    Load,
    LoadError,
    percentile,
    run_window,
    unexpected_bytes,
)
from crossfade.benchmarks.models import DATATYPES, infer_request
from crossfade.benchmarks.peers.crossfade import Crossfade
from crossfade.benchmarks.processes import ServerError, ServerProcess, cpu_between_us
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.workspace import Workspace
from crossfade.serving.wire import tf_serving
from crossfade.serving.wire.tf_framework import DT_FLOAT, DT_INT32

PREDICT_PATH = "/tensorflow.serving.PredictionService/Predict"
READY_S = 60.0
WARMUP_S = 0.5
REGION = "bench"
KEY = "/cf_client_bench"
TARGETS = {"tfs_vs_v2": 1.15, "shm_cpu_vs_message": 1.0, "http_binary_vs_grpc": 1.5}


@dataclass(frozen=True)
class Variant:
    """One way of sending the tensor.

    Attributes:
        body: What h2load sends.
        check: Sends the same request by the protocol's own client, raises if the answer is wrong,
            and returns the size of a right reply as h2load counts it.
    """

    name: str
    model: str
    port: int
    body: bytes
    path: str
    headers: Sequence[str]
    check: Callable[[], int]
    http1: bool = False

    @property
    def key(self) -> str:
        """Names its row."""
        return f"{self.model} {self.name}"


@dataclass(frozen=True)
class Sample:
    """One window."""

    rps: float
    p50_ms: float
    cpu_us: float


class WrongAnswer(Exception):
    """An answer differs from bare ONNX Runtime's."""


def unary(port: int, path: str) -> Callable[[bytes], bytes]:
    """A caller of one method with serialised messages."""
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_unary(path)
    return lambda message: call(message, timeout=30)


class Tensors:
    """One request of a model, and the answer that bare ONNX Runtime gives."""

    def __init__(self, workspace: Workspace, model: str) -> None:
        self.model = model
        with np.load(workspace.reference_file(model)) as arrays:
            named = {key.partition("/")[2]: array for key, array in arrays.items()}
        self.inputs = {k.partition("/")[2]: a for k, a in named.items() if k.startswith("input/")}
        self.expected = {
            k.partition("/")[2]: a for k, a in named.items() if k.startswith("output/")
        }

    def compare(self, name: str, found: np.ndarray[Any, Any] | None) -> None:
        """Raises WrongAnswer unless an output is bare ONNX Runtime's."""
        expected = self.expected[name].ravel()
        if found is None or not np.allclose(found.ravel(), expected, rtol=1e-4, atol=1e-5):
            raise WrongAnswer(f"output '{name}' differs from bare ONNX Runtime's")


def over_grpc(name: str, port: int, tensors: Tensors, parameters: Mapping[str, Any]) -> Variant:
    """``ModelInfer``, with the tensors in the message or, by ``parameters``, in shared memory."""
    request = infer_request(tensors.model, tensors.inputs)
    if parameters:
        del request.raw_input_contents[:]
    for key, value in parameters.items():
        kind = "string_param" if isinstance(value, str) else "int64_param"
        setattr(request.inputs[0].parameters[key], kind, value)
    message = request.SerializeToString()
    call = unary(port, METHOD_PATH)

    def check() -> int:
        reply = call(message)
        answer = triton.service_pb2.ModelInferResponse.FromString(reply)
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
            dtype = tensors.expected[output.name].dtype
            tensors.compare(output.name, np.frombuffer(raw, dtype))
        return len(frame(reply))

    return Variant(name, tensors.model, port, frame(message), METHOD_PATH, GRPC_HEADERS, check)


def over_http(port: int, tensors: Tensors) -> Variant:
    """``POST /v2/models/M/infer`` as ``tritonclient`` makes it, binary both ways."""
    inputs = []
    for name, array in tensors.inputs.items():
        given = triton_http.InferInput(name, list(array.shape), DATATYPES[str(array.dtype)])
        given.set_data_from_numpy(array)
        inputs.append(given)
    wanted = [triton_http.InferRequestedOutput(name) for name in tensors.expected]
    body, head_bytes = triton_http.InferenceServerClient.generate_request_body(
        inputs, outputs=wanted
    )
    path = f"/v2/models/{tensors.model}/infer"
    headers = ["content-type: application/octet-stream"]
    headers.append(f"inference-header-content-length: {head_bytes}")

    def check() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            fields = dict(header.split(": ") for header in headers)
            connection.request("POST", path, body, fields)
            response = connection.getresponse()
            reply = response.read()
            if response.status != 200:
                raise WrongAnswer(f"HTTP {response.status}: {reply[:200]!r}")
            head = int(response.headers["Inference-Header-Content-Length"])
            answer = triton_http.InferenceServerClient.parse_response_body(
                reply, header_length=head
            )
            for name in tensors.expected:
                tensors.compare(name, answer.as_numpy(name))
            return len(reply)

    return Variant("http_binary", tensors.model, port, body, path, headers, check, http1=True)


def over_tfs(port: int, tensors: Tensors) -> Variant:
    """``PredictionService.Predict`` with ``tensor_content``."""
    request = tf_serving.PredictRequest()
    request.model_spec.name = tensors.model
    for name, array in tensors.inputs.items():
        given = request.inputs[name]
        given.dtype = DT_INT32 if array.dtype == np.int32 else DT_FLOAT
        for size in array.shape:
            given.tensor_shape.dim.add(size=size)
        given.tensor_content = array.tobytes()
    message = request.SerializeToString()
    call = unary(port, PREDICT_PATH)

    def check() -> int:
        reply = call(message)
        outputs = tf_serving.PredictResponse.FromString(reply).outputs
        for name, expected in tensors.expected.items():
            values = (
                outputs[name].int_val if expected.dtype == np.int32 else outputs[name].float_val
            )
            tensors.compare(name, np.array(values, expected.dtype))
        return len(frame(reply))

    return Variant("tfs", tensors.model, port, frame(message), PREDICT_PATH, GRPC_HEADERS, check)


@contextlib.contextmanager
def running(workspace: Workspace) -> Iterator[tuple[ServerProcess, list[Variant]]]:
    """A ready server with the picture in a region of shared memory, and the variants for it."""
    small, large = (Tensors(workspace, model) for model in ("addsub", "cnn"))
    launch = Crossfade().launch(workspace, [small.model, large.model])
    command = [*launch.command, "--allow-shared-memory"]
    http_port = int(command[command.index("--http-port") + 1])
    launch = dataclasses.replace(launch, command=command)
    server = ServerProcess("crossfade", launch, workspace.log_file("protocols"))
    (picture,) = large.inputs.values()
    region = shared_memory.create_shared_memory_region(REGION, KEY, picture.nbytes)
    try:
        shared_memory.set_shared_memory_region(region, [picture])
        server.start()
        port = launch.grpc_port
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            wait_ready(server, client)
            client.register_system_shared_memory(REGION, KEY, picture.nbytes)
            place = {"shared_memory_region": REGION, "shared_memory_byte_size": picture.nbytes}
            variants = [over_grpc("grpc_shm", port, large, place)]
            for tensors in (small, large):
                variants.append(over_grpc("grpc", port, tensors, {}))
                variants.append(over_http(http_port, tensors))
                variants.append(over_tfs(port, tensors))
            yield server, variants
    finally:
        server.stop()
        shared_memory.destroy_shared_memory_region(region)


def wait_ready(server: ServerProcess, client: Any) -> None:
    """Waits for the model; raises ServerError if it does not come."""
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s and server.running():
        with contextlib.suppress(triton.InferenceServerException):
            if client.is_server_ready():
                return
        time.sleep(0.05)
    raise ServerError(f"not ready: {server.log_tail()}")


def measure(server: ServerProcess, variant: Variant, body: Path, options: Any) -> Sample:
    """One window, all of whose answers were right."""
    reply_bytes = variant.check()
    body.write_bytes(variant.body)
    load = Load(
        variant.port,
        body,
        options.concurrency,
        WARMUP_S,
        options.seconds,
        variant.path,
        variant.headers,
        variant.http1,
    )
    window = run_window(load, lambda: None, server.sample_cpu)
    surplus = unexpected_bytes(window.summary, reply_bytes)
    if (
        not 0 <= surplus <= options.concurrency * reply_bytes
    ):  # more: cut off by the end of the load
        raise WrongAnswer(
            f"{variant.key}: {window.summary.done} replies of {reply_bytes} bytes, and {surplus}"
        )
    variant.check()
    return Sample(
        window.requests / window.duration_s,
        percentile(window.latencies_us, 50) / 1e3,
        cpu_between_us(window.before, window.after) / window.requests,
    )


def ratios(samples: Sequence[Mapping[str, Sample]]) -> dict[str, float]:
    """The headline: each ratio is the median of those of the repetitions."""

    def median(ratio: Callable[[Mapping[str, Sample]], float]) -> float:
        return round(statistics.median(ratio(each) for each in samples), 3)

    return {
        "tfs_vs_v2": max(
            median(lambda s: s["addsub tfs"].cpu_us / s["addsub grpc"].cpu_us),
            median(lambda s: s["cnn tfs"].cpu_us / s["cnn grpc"].cpu_us),
        ),
        "shm_cpu_vs_message": median(lambda s: s["cnn grpc_shm"].cpu_us / s["cnn grpc"].cpu_us),
        "http_binary_vs_grpc": median(lambda s: s["cnn grpc"].rps / s["cnn http_binary"].rps),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares, measures and reports; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--workspace", type=Path, default=Path(".bench"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    workspace = Workspace(options.workspace)
    workspace.root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "crossfade.benchmarks.models", str(workspace.root)]
    subprocess.run(command, check=True)
    samples: list[dict[str, Sample]] = []
    try:
        with running(workspace) as (server, variants):
            for repetition in range(options.repetitions):
                progress(f"repetition {repetition + 1} of {options.repetitions}")
                turn = repetition % len(variants)
                rotated = (*variants[turn:], *variants[:turn])
                body = workspace.root / "requests" / "protocols.body"
                samples.append({v.key: measure(server, v, body, options) for v in rotated})
    except (LoadError, ServerError, WrongAnswer) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"{'':18} {'requests/s':>10} {'p50 ms':>8} {'CPU us':>8}   (medians)")
    for variant in variants:
        mine = [each[variant.key] for each in samples]
        rps, p50_ms, cpu_us = (
            statistics.median(getattr(sample, field.name) for sample in mine)
            for field in dataclasses.fields(Sample)
        )
        print(f"{variant.key:18} {rps:10.1f} {p50_ms:8.2f} {cpu_us:8.0f}")
    headline = ratios(samples)
    print("\n".join(f"{name}: {value} (<= {TARGETS[name]})" for name, value in headline.items()))
    print(json.dumps({**headline, "repetitions": options.repetitions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
