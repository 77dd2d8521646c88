"""Crossfade itself, as its users start it: a model repository without configuration files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.processes import HOST, Launch, free_ports
from crossfade.benchmarks.workspace import Workspace

HELP_TIMEOUT_S = 60


class Crossfade:
    """The server under test; runs in the harness's own environment."""

    name = "crossfade"
    settings = "as `crossfade serve --model-repository DIR` starts it, all defaults"

    def prepare(self, workspace: Workspace) -> None:
        """Look whether the command is there.

        Raises:
            PeerUnavailableError: This tree has no ``crossfade serve``.
        """
        command = [sys.executable, "-m", "crossfade", "serve", "--help"]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=HELP_TIMEOUT_S, check=False
        )
        if result.returncode != 0:
            reason = result.stderr.strip().rpartition("\n")[2]
            raise PeerUnavailableError(f"`crossfade serve --help` failed: {reason}")

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Lay out a repository of these models, without configuration files, and serve it."""
        repository = workspace.peer_folder(self.name) / "repository"
        shutil.rmtree(repository, ignore_errors=True)
        for model in models:
            version_folder = repository / model / "1"
            version_folder.mkdir(parents=True)
            # The same file: a server may refuse to follow a symbolic link out of its repository.
            os.link(workspace.model_file(model), version_folder / "model.onnx")
        grpc_port, http_port, metrics_port = free_ports(3)
        command = [sys.executable, "-m", "crossfade", "serve"]
        command += ["--model-repository", str(repository), "--host", HOST]
        command += ["--grpc-port", str(grpc_port), "--http-port", str(http_port)]
        command += ["--metrics-port", str(metrics_port)]
        return Launch(command, grpc_port)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the harness's environment."""
        return {
            package: version(package)
            for package in ("crossfade", "grpcio", "protobuf", "onnxruntime")
        }
