"""What a run says: a bar, ``metrics.jsonl``, and on request TensorBoard and MLflow."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.extras import require

_METRICS: Final = "metrics.jsonl"
_MLFLOW_RUN: Final = "mlflow-run"
_BAR_WIDTH: Final = 24
_LINE_EVERY_S: Final = 10.0


class RunLog:
    """The log of one run in its folder. Not thread-safe; a process that does not write has none.

    Of a run that is resumed, what was logged after the checkpoint is taken back first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int = 0,
        tensorboard: bool = False,
        mlflow: str | None = None,
        experiment: str = "crossfade",
    ) -> None:
        """Opens it.

        Args:
            folder: the run's.
            step: where the run begins; more than 0 for one that is resumed.
            tensorboard: write events for TensorBoard into ``folder/tensorboard``.
            mlflow: tracking URI.
            experiment: MLflow's name for runs that belong together.

        Raises:
            MissingExtra: what writes such logs is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._events: Any = None
        if tensorboard:
            library = require("tensorboardX", "training", "logging for TensorBoard")
            self._events = library.SummaryWriter(
                str(folder / "tensorboard"), purge_step=step or None
            )
        self._mlflow = _MlflowRun(folder, mlflow, experiment) if mlflow else None
        self._file = _taken_back(folder / _METRICS, step).open("a", encoding="utf-8")
        self._said_s = -math.inf

    def config(self, values: Mapping[str, Any]) -> None:
        """Records what the run was told, once."""
        if self._mlflow is not None:
            self._mlflow.config(values)
        if self._events is not None:
            self._events.add_text("config", f"```json\n{json.dumps(values, indent=1)}\n```", 0)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records values of a step, by names such as ``validation/accuracy``."""
        line = {"step": step, **{k: v if math.isfinite(v) else str(v) for k, v in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._mlflow is not None:
            self._mlflow.metrics(step, values)

    def progress(self, done: int, total: int, text: str) -> None:
        """Draws a bar on a terminal; elsewhere writes a line now and then, and at the end."""
        if sys.stderr.isatty():
            filled = "#" * (_BAR_WIDTH * done // max(total, 1))
            end = "\n" if done >= total else ""
            sys.stderr.write(f"\r[{filled:{_BAR_WIDTH}}] {done:,} of {total:,}  {text}\x1b[K{end}")
        elif done >= total or time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._said_s = time.monotonic()
            sys.stderr.write(f"step {done:,} of {total:,}  {text}\n")
        sys.stderr.flush()

    def close(self, *, failed: bool = False) -> None:
        """Closes what is open; MLflow is told how the run ended."""
        self._file.close()
        if self._events is not None:
            self._events.close()
        if self._mlflow is not None:
            self._mlflow.close(failed)


def _taken_back(path: Path, step: int) -> Path:
    """Removes lines of later steps, and one that a kill cut off."""
    if not path.exists():
        return path
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step and step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    temporary = path.with_suffix(".new")
    temporary.write_text("".join(kept), "utf-8")
    os.replace(temporary, path)
    return path


class _MlflowRun:
    def __init__(self, folder: Path, uri: str, experiment: str) -> None:
        library = require("mlflow", "mlflow", "logging to MLflow")
        self._client = library.MlflowClient(tracking_uri=uri)
        kept = folder / _MLFLOW_RUN
        if kept.exists():
            self._id = kept.read_text("utf-8")
            return
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self._id = self._client.create_run(number).info.run_id
        kept.write_text(self._id, "utf-8")

    def config(self, values: Mapping[str, Any]) -> None:
        for name, value in _flat(values).items():
            self._client.log_param(self._id, name, value)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
