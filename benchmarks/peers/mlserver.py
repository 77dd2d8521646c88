"""Seldon's MLServer as a peer, with a custom runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence

from crossfade.benchmarks.peers.virtual_environment import (
    REQUIREMENTS,
    prepare_venv,
    venv_versions,
)
from crossfade.benchmarks.processes import HOST, Launch, free_ports
from crossfade.benchmarks.workspace import Workspace

RUNTIME = "crossfade.benchmarks.programs.mlserver_runtime.OnnxRuntime"


class MLServer:
    """MLServer 1.7 in one process."""

    name = "mlserver"
    settings = (
        "MLServer, parallel_workers=0, debug off, default (no) batching; addsub on the event loop, "
        "cnn on two threads"
    )
    _requirements = REQUIREMENTS / "mlserver.txt"

    def prepare(self, workspace: Workspace) -> None:
        """Make the virtual environment."""
        prepare_venv(workspace.venv(self.name), self._requirements)

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Write MLServer's settings files and serve them."""
        workspace.link_package()
        folder = workspace.peer_folder(self.name)
        shutil.rmtree(folder, ignore_errors=True)
        for model in models:
            (folder / model).mkdir(parents=True)
            settings = {
                "name": model,
                "implementation": RUNTIME,
                "parameters": {"uri": str(workspace.model_file(model).resolve())},
            }
            (folder / model / "model-settings.json").write_text(json.dumps(settings))
        grpc_port, http_port, metrics_port = free_ports(3)
        server_settings = {
            "debug": False,
            "parallel_workers": 0,
            "host": HOST,
            "grpc_port": grpc_port,
            "http_port": http_port,
            "metrics_port": metrics_port,
        }
        (folder / "settings.json").write_text(json.dumps(server_settings))
        program = workspace.venv(self.name).absolute() / "bin" / "mlserver"
        environment = {"PYTHONPATH": str(workspace.import_path.resolve())}
        # In its own folder: MLServer puts the working directory before the import path, and writes
        # its metrics files there.
        return Launch([str(program), "start", "."], grpc_port, environment, folder)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the server, and of what its models import."""
        packages = ("mlserver", "grpcio", "uvloop", "onnxruntime", "numpy")
        return venv_versions(self._requirements, packages)
