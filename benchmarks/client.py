"""The checking client: readiness, and every answer compared with bare ONNX Runtime's.

A program of its own, driven by JSON lines on its standard input and output (`checker.py` holds the
other end): the harness maps neither gRPC nor numpy, whose pages it would share with a server and so
lower that server's PSS. It ends before memory is measured.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from crossfade.benchmarks.framing import FRAME_HEADER_BYTES
from crossfade.benchmarks.models import DATATYPES, infer_request
from crossfade.benchmarks.workspace import Workspace

Array = npt.NDArray[np.generic]

SERVICE = "/inference.GRPCInferenceService/"
POLL_S = 0.01
CALL_TIMEOUT_S = 60.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
# A batched run may take other kernels than a single one and round differently.
FLOAT_TOLERANCE = 1e-4
DTYPES = {datatype: np.dtype(dtype) for dtype, datatype in DATATYPES.items()}
CONTENT_FIELDS = {"INT32": "int_contents", "FP32": "fp32_contents"}


@dataclass(frozen=True)
class Reference:
    """One request and its right answer.

    Attributes:
        request: The serialised `ModelInferRequest`.
        outputs: By name, from bare ONNX Runtime.
    """

    request: bytes
    outputs: Mapping[str, Array]


def read_references(path: Path, model: str) -> list[Reference]:
    """Read what `models.write_model` wrote."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    references: list[Reference] = []
    for index in count():
        inputs, outputs = (
            {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
            for prefix in (f"{index}/input/", f"{index}/output/")
        )
        if not inputs:
            return references
        request = infer_request(model, inputs).SerializeToString()
        references.append(Reference(request, outputs))
    raise AssertionError  # count() does not end


def decode_outputs(reply: bytes) -> dict[str, Array]:
    """Read the output tensors of a serialised `ModelInferResponse`, raw or typed."""
    response = service_pb2.ModelInferResponse.FromString(reply)
    outputs: dict[str, Array] = {}
    for index, tensor in enumerate(response.outputs):
        dtype = DTYPES[tensor.datatype]
        if response.raw_output_contents:
            flat = np.frombuffer(response.raw_output_contents[index], dtype)
        else:
            flat = np.array(getattr(tensor.contents, CONTENT_FIELDS[tensor.datatype]), dtype)
        outputs[tensor.name] = flat.reshape(tensor.shape)
    return outputs


def difference(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> str | None:
    """Say how an answer is wrong, or None if it is right."""
    if expected.keys() != actual.keys():
        return f"outputs {sorted(actual)} instead of {sorted(expected)}"
    for name, right in expected.items():
        answer = actual[name]
        if answer.shape != right.shape or answer.dtype != right.dtype:
            return f"{name} is {answer.dtype}{list(answer.shape)}"
        tolerance = FLOAT_TOLERANCE if right.dtype.kind == "f" else 0
        if not np.allclose(answer, right, rtol=tolerance, atol=tolerance):
            return (
                f"{name} is off by {np.max(np.abs(np.subtract(answer, right, dtype=np.float64)))}"
            )
    return None


class Client:
    """Calls to one server, with serialised messages.

    Args:
        grpc_port: Of the server on 127.0.0.1.
        references: By model.
    """

    def __init__(self, grpc_port: int, references: Mapping[str, Sequence[Reference]]) -> None:
        self._port = grpc_port
        self._references = references
        self._next = count()
        self._channel: grpc.Channel | None = None

    def wait_ready(self, models: Sequence[str], timeout_s: float) -> dict[str, Any]:
        """Wait until the server and the models are ready; looks every 10 ms.

        Returns:
            ``ready_at_s``: the monotonic time then, or None if it took too long.
        """
        deadline_s = time.monotonic() + timeout_s
        # Not through gRPC: after a refused connection a channel waits long before the next try.
        while not _listens(self._port):
            if time.monotonic() > deadline_s:
                return {"ready_at_s": None}
            time.sleep(POLL_S)
        questions = [
            ("ServerReady", service_pb2.ServerReadyRequest(), service_pb2.ServerReadyResponse)
        ] + [
            ("ModelReady", service_pb2.ModelReadyRequest(name=m), service_pb2.ModelReadyResponse)
            for m in models
        ]
        while not all(self._is_ready(*question) for question in questions):
            if time.monotonic() > deadline_s:
                return {"ready_at_s": None}
            time.sleep(POLL_S)
        return {"ready_at_s": time.monotonic()}

    def check(self, model: str, calls: int) -> dict[str, Any]:
        """Send some requests one after the other and compare their answers."""
        return self._check(model, lambda sent: sent < calls)

    def check_for(self, model: str, duration_s: float) -> dict[str, Any]:
        """Send requests one after the other for some seconds and compare their answers."""
        end_s = time.monotonic() + duration_s
        return self._check(model, lambda _: time.monotonic() < end_s)

    def reply_bytes(self, model: str) -> dict[str, Any]:
        """The body of the reply to the load's request (reference 0), its gRPC frame included."""
        reply = self._call("ModelInfer", self._references[model][0].request)
        return {"reply_bytes": FRAME_HEADER_BYTES + len(reply)}

    def _check(self, model: str, more: Callable[[int], bool]) -> dict[str, Any]:
        sent, wrong, first_error = 0, 0, None
        references = self._references[model]
        while more(sent):
            reference = references[next(self._next) % len(references)]
            sent += 1
            try:
                reply = self._call("ModelInfer", reference.request)
                error = difference(reference.outputs, decode_outputs(reply))
            except grpc.RpcError as rpc_error:
                error = f"{rpc_error.code().name}: {rpc_error.details()}"
            if error is not None:
                wrong += 1
                first_error = first_error or error
        return {"checked": sent, "wrong": wrong, "first_error": first_error}

    def _is_ready(self, method: str, request: Any, reply_type: Any) -> bool:
        try:
            return bool(
                reply_type.FromString(self._call(method, request.SerializeToString())).ready
            )
        except grpc.RpcError:
            return False

    def _call(self, method: str, message: bytes) -> bytes:
        if self._channel is None:
            limit = ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)
            self._channel = grpc.insecure_channel(f"127.0.0.1:{self._port}", options=[limit])
        # Without a serialiser, grpcio sends and returns bytes.
        reply: bytes = self._channel.unary_unary(SERVICE + method)(message, timeout=CALL_TIMEOUT_S)
        return reply


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Do what each line of standard input asks, and answer with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("models", nargs="+")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.workspace)
    client = Client(
        arguments.grpc_port,
        {m: read_references(workspace.reference_file(m), m) for m in arguments.models},
    )
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "wait_ready": client.wait_ready,
        "check": client.check,
        "check_for": client.check_for,
        "reply_bytes": client.reply_bytes,
    }
    print(json.dumps({"listening": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        action = actions[command.pop("action")]
        print(json.dumps(action(**command)), flush=True)


if __name__ == "__main__":
    main()
