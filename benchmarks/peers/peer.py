"""What the benchmark asks of every server: to be prepared, and to say how it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from crossfade.benchmarks.processes import Launch
from crossfade.benchmarks.workspace import Workspace


class PeerUnavailableError(Exception):
    """A peer cannot be prepared on this machine; the message is the reason."""


class Peer(Protocol):
    """A server under measurement.

    Attributes:
        name: As in the report and the command line.
        settings: How it runs, in a sentence for the report.
    """

    name: str
    settings: str

    def prepare(self, workspace: Workspace) -> None:
        """Install what is missing; does nothing when all is there.

        Raises:
            PeerUnavailableError: It cannot be installed here.
        """

    def launch(self, workspace: Workspace, models: Sequence[str]) -> Launch:
        """Write the server's configuration for some models and say how to start it."""

    def versions(self, workspace: Workspace) -> Mapping[str, str]:
        """The versions that matter to the result, by package."""
