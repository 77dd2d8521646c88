"""What a version was made of, for those who make something else of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from crossfade.runtimes.core.model import Artifact, Model

Around = Callable[[Model], Model]


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """One session's files, and the session without a queue.

    Attributes:
        leaf: the session as a Model.
        around: puts around a Model what the configuration asks for; ``None`` is nothing.
        folder: of the version's files.
    """

    platform: str
    artifact: Artifact
    leaf: Model
    around: Around | None
    folder: Path

    def processed(self, inner: Model) -> Model:
        """A Model with what is asked for around it."""
        return inner if self.around is None else self.around(inner)
