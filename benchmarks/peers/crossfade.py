"""Crossfade itself, as its users start it: a model repository without configuration files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec

from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.processes import HOST, Launch, free_ports
from crossfade.benchmarks.workspace import Workspace


class Crossfade:
    """The server under test; runs in the harness's own environment."""

    name = "crossfade"
    settings = "as `crossfade serve --model-repository DIR` starts it, all defaults"

    def prepare(self, workspace: Workspace) -> None:
        """Look whether the server is there.

        Raises:
            PeerUnavailableError: This tree has no ``crossfade serve``.
        """
        try:
            found = find_spec("crossfade.serving.cli.main") is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise PeerUnavailableError("this tree has no `crossfade serve` (crossfade.serving.cli)")

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Serve the repository; it holds the benchmark's models and no others."""
        grpc_port, http_port, metrics_port = free_ports(3)
        command = [sys.executable, "-m", "crossfade", "serve"]
        command += ["--model-repository", str(workspace.repository), "--host", HOST]
        command += ["--grpc-port", str(grpc_port), "--http-port", str(http_port)]
        command += ["--metrics-port", str(metrics_port)]
        return Launch(command, grpc_port)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the harness's environment."""
        return {
            package: version(package)
            for package in ("crossfade", "grpcio", "protobuf", "onnxruntime")
        }
