"""Crossfade itself, as its users start it: a model repository without configuration files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.processes import HOST, Launch, free_ports
from crossfade.benchmarks.workspace import Workspace

HELP_TIMEOUT_S = 60


class Crossfade:
    """The server under test; runs in the harness's own environment.

    Args:
        name: Of this way to start it.
        options: Of the command, on top of the repository and the ports.
    """

    def __init__(self, name: str = "crossfade", options: Sequence[str] = ()) -> None:
        self.name = name
        self._options = options
        shown = " ".join(("--model-repository DIR", *options))
        self.settings = f"as `crossfade serve {shown}` starts it"

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
        command += ["--metrics-port", str(metrics_port), *self._options]
        return Launch(command, grpc_port)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the harness's environment."""
        packages = ("crossfade", "crossfade-native", "grpcio", "protobuf", "onnxruntime")
        found: dict[str, str] = {}
        for package in packages:
            with contextlib.suppress(PackageNotFoundError):
                found[package] = version(package)
        return found
