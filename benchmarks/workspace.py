"""Where a benchmark keeps what it makes: one git-ignored folder, laid out in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folders of one benchmark workspace.

    Attributes:
        root: The workspace folder, by default ``.bench`` in the project root.
    """

    root: Path

    @property
    def repository(self) -> Path:
        """The ONNX models, ``<model>/1/model.onnx``."""
        return self.root / "models"

    def model_file(self, model: str) -> Path:
        """The one ONNX file of a model, served by every server."""
        return self.repository / model / "1" / "model.onnx"

    def request_file(self, model: str) -> Path:
        """The framed request that the load generator sends."""
        return self.root / "requests" / f"{model}.grpc"

    def reference_file(self, model: str) -> Path:
        """Inputs and the outputs that bare ONNX Runtime gives for them (numpy archive)."""
        return self.root / "requests" / f"{model}.npz"

    def venv(self, peer: str) -> Path:
        """The virtual environment of a peer."""
        return self.root / peer

    def peer_folder(self, peer: str) -> Path:
        """What a peer needs beside its virtual environment, such as its model repository."""
        return self.root / "peers" / peer

    def log_file(self, server: str) -> Path:
        """What a server printed in its latest run."""
        return self.root / "logs" / f"{server}.log"

    @property
    def import_path(self) -> Path:
        """A folder for PYTHONPATH that holds this package and nothing else: see `link_package`."""
        return self.root / "python"

    def link_package(self) -> None:
        """Make this package importable in a peer's virtual environment, and nothing else of ours.

        The folder above the package would bring its neighbours along (the whole of site-packages,
        where crossfade is installed from a wheel) and shadow the peer's own packages. Without an
        ``__init__.py`` the link's parent is a namespace package, so that a peer does not run
        crossfade's.
        """
        link = self.import_path / "crossfade" / "benchmarks"
        link.parent.mkdir(parents=True, exist_ok=True)
        package = Path(__file__).resolve().parent
        if link.is_symlink() and link.resolve() == package:
            return
        link.unlink(missing_ok=True)
        link.symlink_to(package)
