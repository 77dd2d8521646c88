"""KServe's Python SDK as a peer: its own model server with a custom model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossfade.benchmarks.peers.virtual_environment import (
    REQUIREMENTS,
    prepare_venv,
    venv_versions,
)
from crossfade.benchmarks.processes import Launch, free_ports
from crossfade.benchmarks.workspace import Workspace


class KServe:
    """KServe 0.21 in one process (`programs/kserve_server.py` says what was tuned)."""

    name = "kserve"
    settings = (
        "KServe SDK, one process, uvloop, no log line per request; addsub on the event loop, "
        "cnn on two threads"
    )
    _requirements = REQUIREMENTS / "kserve.txt"

    def prepare(self, workspace: Workspace) -> None:
        """Make the virtual environment."""
        prepare_venv(workspace.venv(self.name), self._requirements)

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Serve the models' files; KServe listens on all interfaces and has no option for it."""
        workspace.link_package()
        grpc_port, http_port = free_ports(2)
        command = [
            str(workspace.venv(self.name).absolute() / "bin" / "python"),
            "-m",
            "crossfade.benchmarks.programs.kserve_server",
            f"--grpc_port={grpc_port}",
            f"--http_port={http_port}",
            *(f"{model}={workspace.model_file(model).resolve()}" for model in models),
        ]
        # Elsewhere than in the project root, whose crossfade package would be found first.
        folder = workspace.peer_folder(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"PYTHONPATH": str(workspace.import_path.resolve())}
        return Launch(command, grpc_port, environment, folder)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the server, and of what its models import."""
        packages = ("kserve", "grpcio", "uvloop", "onnxruntime", "numpy")
        return venv_versions(self._requirements, packages)
