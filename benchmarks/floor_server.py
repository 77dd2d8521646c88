"""The floor: the least that a gRPC server in Python can do, on grpcio's synchronous server.

ONNX Runtime runs inline in the handler's thread. Nothing is validated, batched or counted: what
crossfade costs above this is crossfade's own::

    python -m crossfade.benchmarks.floor_server --grpc-port 9001 addsub=a.onnx cnn=b.onnx
"""

from __future__ import annotations

import argparse
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from crossfade.benchmarks.onnx_session import open_session

HANDLER_THREADS = 4
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
DTYPES = {"INT32": np.dtype(np.int32), "FP32": np.dtype(np.float32)}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


class FloorServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc] # untyped
    """The three calls of the Open Inference Protocol that the benchmark makes."""

    def __init__(self, sessions: dict[str, Any]) -> None:
        self._sessions = {
            name: (session, [output.name for output in session.get_outputs()])
            for name, session in sessions.items()
        }

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer yes: the port opens after the models are loaded."""
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer yes for a model of the command line."""
        return service_pb2.ModelReadyResponse(ready=request.name in self._sessions)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Run one request as it comes."""
        session, output_names = self._sessions[request.model_name]
        feeds = {
            tensor.name: np.frombuffer(content, DTYPES[tensor.datatype]).reshape(tensor.shape)
            for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, array in zip(output_names, session.run(None, feeds), strict=True):
            response.outputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response


def main() -> None:
    """Serve the models of the command line until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    arguments = parser.parse_args()
    models = dict(model.split("=", 1) for model in arguments.models)

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = grpc.server(
        ThreadPoolExecutor(HANDLER_THREADS),
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)],
    )
    sessions = {name: open_session(path) for name, path in models.items()}
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(FloorServicer(sessions), server)
    server.add_insecure_port(f"127.0.0.1:{arguments.grpc_port}")
    server.start()
    stop.wait()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
