"""The floor as a peer: grpcio's synchronous server with ONNX Runtime inline (`floor_server.py`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from crossfade.benchmarks.processes import Launch, free_ports
from crossfade.benchmarks.workspace import Workspace


class Floor:
    """The least that a gRPC server in Python costs; runs in the harness's own environment."""

    name = "floor"
    settings = (
        "grpcio synchronous server, 4 threads, ONNX Runtime inline, no validation, no batching"
    )

    def prepare(self, workspace: Workspace) -> None:
        """Nothing to install."""

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Serve the models' files."""
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "crossfade.benchmarks.floor_server", f"--grpc-port={port}"]
        command += [f"{model}={workspace.model_file(model)}" for model in models]
        return Launch(command, port)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the harness's environment."""
        return {package: version(package) for package in ("grpcio", "protobuf", "onnxruntime")}
