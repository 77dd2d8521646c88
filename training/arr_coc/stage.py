"""One part of a run: where it stands, what it says, and its checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from crossfade.training.core import checkpoint
from crossfade.training.core.run_log import RunLog


class Stateful(Protocol):
    """What a checkpoint holds a part of: a module, or what updates it."""

    def state_dict(self) -> Any:
        """For a checkpoint."""
        ...

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """From one."""
        ...


@dataclasses.dataclass
class Progress:
    """How far a stage is: epochs that are done, and the best validation so far."""

    epoch: int = 0
    best: float = -1.0


class Stage:
    """A stage's folder. Not thread-safe.

    Args:
        folder: for its log and its checkpoints.
        name: for the bar.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._checkpoints = folder / "checkpoints"
        self._name = name
        self._found = checkpoint.latest(self._checkpoints)
        self._log = RunLog(folder, step=self._found[0] if self._found else 0)

    def resume(self, progress: Progress, parts: Mapping[str, Stateful]) -> None:
        """Puts all parts where the last checkpoint found them, if there is one."""
        if self._found is None:
            return
        state = self._found[1]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        progress.epoch, progress.best = state["epoch"], state["best_score"]

    def say(self, done: int, total: int, text: str) -> None:
        """Moves the bar."""
        self._log.progress(done, total, f"{self._name}: {text}")

    def record(
        self,
        step: int,
        values: Mapping[str, float],
        progress: Progress,
        parts: Mapping[str, Stateful],
    ) -> None:
        """Logs values and writes a checkpoint."""
        self._log.metrics(step, values)
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"epoch": progress.epoch, "best_score": progress.best}
        checkpoint.write(self._checkpoints, step, state, keep=1)

    def close(self) -> None:
        """Closes the log."""
        self._log.close()
