"""Options that all trainers have, what they open, and what they say at the end."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crossfade.serving.repository.lineage import Card, lines_of
from crossfade.training.core import checkpoint, run_folder
from crossfade.training.core.devices import Place
from crossfade.training.core.run_log import RunLog

CHECKPOINTS = "checkpoints"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    option = parser.add_argument
    option("--name", required=True, help="what clients will call the model")
    option("--repository", required=True, type=Path, metavar="DIR", help="where it is written")
    option("--config", type=Path, metavar="FILE", help="YAML; the defaults without one")
    option(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one value, such as batch_size=64; may be repeated",
    )
    option(
        "--run-dir",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="checkpoints and logs; a run that is there goes on (runs/NAME)",
    )
    option("--tensorboard", action="store_true", help="write events into the run's folder")
    option("--mlflow", metavar="URI", help="log to this MLflow server or database, too")


@contextlib.contextmanager
def opened(options: argparse.Namespace, here: Place) -> Iterator[Path]:
    """The run's folder, held against other runs by the first process.

    Raises:
        FailedPrecondition: another run is at work in it.
    """
    folder: Path = options.folder or Path("runs") / options.name
    with run_folder.held(folder) if here.first else contextlib.nullcontext():
        yield folder


@contextlib.contextmanager
def logged(
    options: argparse.Namespace, folder: Path, here: Place, config: Mapping[str, Any]
) -> Iterator[RunLog | None]:
    """The first process's log, which is told how the run ends; ``None`` in the others."""
    if not here.first:
        yield None
        return
    found = checkpoint.latest(folder / CHECKPOINTS)
    log = RunLog(
        folder,
        step=found[0] if found else 0,
        tensorboard=options.tensorboard,
        mlflow=options.mlflow,
        experiment=options.name,
    )
    if found is None:
        log.config(config)
    try:
        yield log
    except BaseException:
        log.close(failed=True)
        raise
    log.close()


def wrote(options: argparse.Namespace, version: Path, card: Card | None) -> str:
    """What a command says of the version that it wrote, and what can be done next."""
    lines = [f"{options.name} version {version.name}: wrote {version}"]
    lines += [f"  {line}" for line in (lines_of(card) if card else ())]
    repository = shlex.quote(str(options.repository))
    lines += ["next:", f"  crossfade serve --model-repository {repository}"]
    return "\n".join(lines) + "\n"
