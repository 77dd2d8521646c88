"""NVIDIA's Triton Inference Server as a peer, from the nvidia-pytriton wheel, without a container.

The wheel holds the real server and its Python backend, not its C++ ONNX Runtime backend: the models
are `programs/triton_model.py`, which runs ONNX Runtime in the backend's stub processes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.peers.virtual_environment import (
    REQUIREMENTS,
    prepare_venv,
    venv_versions,
)
from crossfade.benchmarks.processes import HOST, Launch, free_ports
from crossfade.benchmarks.session_settings import PARALLEL_RUNS
from crossfade.benchmarks.workspace import Workspace

SERVER_VERSION = "2.51.0"  # of the server inside nvidia-pytriton 0.7.0, as it reports itself
# The fastest of 1, 8 and 32, tried on two cores: batches of 32 pictures outgrow the caches.
MAX_BATCH_SIZES: Mapping[str, int] = {"addsub": 32, "mlp": 32, "cnn": 8}

MODEL_PY = "from crossfade.benchmarks.programs.triton_model import TritonPythonModel\n"

CONFIG = """\
name: "{model}"
backend: "python"
max_batch_size: {max_batch_size}
{tensors}
instance_group [{{ kind: KIND_CPU, count: {instances} }}]
dynamic_batching {{ }}
parameters {{ key: "onnx_file", value: {{ string_value: "{onnx_file}" }} }}
"""

TENSORS: Mapping[str, str] = {
    "addsub": """\
input [
  { name: "INPUT0", data_type: TYPE_INT32, dims: [16] },
  { name: "INPUT1", data_type: TYPE_INT32, dims: [16] }
]
output [
  { name: "OUTPUT0", data_type: TYPE_INT32, dims: [16] },
  { name: "OUTPUT1", data_type: TYPE_INT32, dims: [16] }
]""",
    "mlp": """\
input [{ name: "features", data_type: TYPE_FP32, dims: [32] }]
output [{ name: "scores", data_type: TYPE_FP32, dims: [8] }]""",
    "cnn": """\
input [{ name: "pixels", data_type: TYPE_FP32, dims: [3, 224, 224] }]
output [{ name: "scores", data_type: TYPE_FP32, dims: [1000] }]""",
}


class Triton:
    """Triton 2.51 with its Python backend."""

    name = "triton"
    settings = (
        f"Triton {SERVER_VERSION}, Python backend with ONNX Runtime, {PARALLEL_RUNS} instances a "
        f"model, dynamic batching without delay, up to {MAX_BATCH_SIZES}"
    )
    _requirements = REQUIREMENTS / "triton.txt"

    def prepare(self, workspace: Workspace) -> None:
        """Make the virtual environment and lay out the Python backend's folder."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        prepare_venv(workspace.venv(self.name), self._requirements)
        server = self._site_packages(workspace) / "pytriton" / "tritonserver"
        stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise PeerUnavailableError(f"nvidia-pytriton has no backend stub for Python {version}")
        backend = self._backends(workspace) / "python"
        if not backend.exists():
            shutil.copytree(server / "backends" / "python", backend)
        target = Path(shutil.copy(stub, backend / stub.name))
        target.chmod(0o755)
        (server / "bin" / "tritonserver").chmod(0o755)

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Write the model repository in Triton's layout and serve it."""
        workspace.link_package()
        repository = workspace.peer_folder(self.name) / "repository"
        shutil.rmtree(repository, ignore_errors=True)
        for model in models:
            (repository / model / "1").mkdir(parents=True)
            (repository / model / "1" / "model.py").write_text(MODEL_PY)
            config = CONFIG.format(
                model=model,
                max_batch_size=MAX_BATCH_SIZES[model],
                tensors=TENSORS[model],
                instances=PARALLEL_RUNS,
                onnx_file=workspace.model_file(model).resolve(),
            )
            (repository / model / "config.pbtxt").write_text(config)
        return self.serve(workspace, repository, free_ports(3))

    def installed(self, workspace: Workspace) -> bool:
        """Whether `prepare` has been here."""
        return self._backends(workspace).is_dir()

    def serve(
        self, workspace: Workspace, repository: Path, ports: Sequence[int], *options: str
    ) -> Launch:
        """How to serve any repository of models for the Python backend.

        Args:
            workspace: Where `prepare` has installed the server.
            repository: In Triton's layout.
            ports: For gRPC, HTTP and metrics.
            options: More of tritonserver's.
        """
        grpc_port, http_port, metrics_port = ports
        packages = self._site_packages(workspace)
        command = [
            str(packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
            f"--model-repository={repository.resolve()}",
            f"--backend-directory={self._backends(workspace).resolve()}",
            f"--grpc-address={HOST}",
            f"--http-address={HOST}",
            f"--metrics-address={HOST}",
            f"--grpc-port={grpc_port}",
            f"--http-port={http_port}",
            f"--metrics-port={metrics_port}",
            "--allow-gpu-metrics=false",
            *options,
        ]
        libraries = [packages / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        environment = {
            "PATH": f"{workspace.venv(self.name).resolve() / 'bin'}:/usr/bin:/bin",
            "PYTHONPATH": f"{packages}:{workspace.import_path.resolve()}",
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        }
        return Launch(command, grpc_port, environment)

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """Of the server, and of what its models import."""
        packages = venv_versions(self._requirements, ("nvidia-pytriton", "onnxruntime", "numpy"))
        return {"tritonserver": SERVER_VERSION, **packages}

    def _backends(self, workspace: Workspace) -> Path:
        return workspace.peer_folder(self.name) / "backends"

    def _site_packages(self, workspace: Workspace) -> Path:
        """The virtual environment's site-packages, as an absolute path."""
        python = workspace.venv(self.name) / "bin" / "python"
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        return Path(result.stdout.strip()).resolve()


if __name__ == "__main__":
    Triton().prepare(Workspace(Path(".bench")))
