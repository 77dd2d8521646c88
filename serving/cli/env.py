"""``crossfade env``: make, list and remove environments for isolated models."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from crossfade.runtimes.isolated import environments

_EPILOG = """\
An isolated model may run with other packages than the server (model.yaml):
  isolation: {process: true, environment: automl-tabular}

example:
  crossfade env create automl-tabular
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "env",
        help="make, list and remove environments for isolated models",
        description="Make, list and remove environments for models in worker processes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text, run in (
        ("create", "make an environment from its pinned packages", _create),
        ("list", "say which there are, and which can be made", _list),
        ("remove", "remove an environment", _remove),
    ):
        action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
        if run is not _list:
            action.add_argument("name", help="the environment's name")
        action.add_argument(
            "--environments-dir",
            type=Path,
            metavar="DIR",
            help="where environments are (the user's data folder)",
        )
        action.set_defaults(run=run)


def _folder(options: argparse.Namespace) -> Path:
    return options.environments_dir or environments.default_folder()


def _create(options: argparse.Namespace) -> int:
    def say(text: str) -> None:
        sys.stderr.write(f"{options.name}: {text} ...\n")

    python = environments.create(options.name, _folder(options), say)
    sys.stdout.write(f"{python}\n")
    return 0


def _list(options: argparse.Namespace) -> int:
    there = environments.installed(_folder(options))
    for name in sorted({*there, *environments.KNOWN}):
        known = environments.KNOWN.get(name)
        state = "there" if name in there else "can be made"
        sys.stdout.write(f"{name:20} {state:12} {known.summary if known else ''}".rstrip() + "\n")
    return 0


def _remove(options: argparse.Namespace) -> int:
    environments.remove(options.name, _folder(options))
    return 0
