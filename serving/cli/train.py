"""``crossfade train``: one trainer for each task, loaded when it is asked for."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import MissingExtra


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One subcommand.

    Attributes:
        module: has ``add_arguments(parser)`` and ``run(options)``, which returns the exit code.
        help: a line about it.
        extra: what must be installed for it.
    """

    module: str
    help: str
    extra: str = "training"


TASKS: Final[Mapping[str, Task]] = {
    "arr-coc": Task(
        "crossfade.training.arr_coc.command", "which patches of a picture a query is about"
    ),
    "detector": Task(
        "crossfade.training.arr_coc.detector_command",
        "a dense detector: which classes cover each patch of a picture",
    ),
    "image-classifier": Task(
        "crossfade.training.image_classifier.command", "a classifier of pictures"
    ),
    "warm-start": Task(
        "crossfade.training.warm_start.command",
        "a classifier of pictures that begins with an export's features",
    ),
    "baseline": Task(
        "crossfade.training.baseline.command", "what AutoML would have made of the data"
    ),
    "gate": Task("crossfade.training.gate.command", "no training yet: are the data worth one?"),
}


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "train",
        help="train a model and write it into a repository",
        description="Train a model: its next version is written into the repository with a card"
        " that says what it was made of.",
    )
    tasks = parser.add_subparsers(
        title="tasks", metavar="TASK", required=True, parser_class=_TaskParser
    )
    for name, task in TASKS.items():
        tasks.add_parser(
            name,
            help=task.help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            task=task,
        )


class _TaskParser(argparse.ArgumentParser):
    """Asks the task's module for its options only when the task is chosen."""

    def __init__(self, *arguments: Any, task: Task, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._task: Task | None = task

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        task, self._task = self._task, None
        if task is not None:
            module = _module(task, self.prog)
            module.add_arguments(self)
            self.set_defaults(run=module.run)
        return super().parse_known_args(*arguments, **options)


def _module(task: Task, needed_by: str) -> Any:
    try:
        return importlib.import_module(task.module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "crossfade":
            raise
        raise MissingExtra(task.extra, needed_by) from error
