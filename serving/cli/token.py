"""``crossfade token``: make a token and add its digest to a token file."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import yaml

from crossfade.runtimes.core.errors import AlreadyExists, InvalidArgument
from crossfade.serving.transport.tokens import digest

_EPILOG = """\
The token is printed once and kept nowhere; the file holds its SHA-256.

example:
  crossfade token --file tokens.yaml --name ci --role infer --role read
  crossfade serve --model-repository models/ --tokens tokens.yaml
  curl -H "authorization: Bearer $TOKEN" http://127.0.0.1:8000/v2
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "token",
        help="make a token for a caller of the server",
        description="Make a token for a caller of the server, and add it to a token file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--file", type=Path, required=True, metavar="YAML", help="made if it is not there")
    option("--name", required=True, help="who will use it; shown in logs")
    option(
        "--role",
        action="append",
        required=True,
        choices=("infer", "read", "admin"),
        help="what it allows; may be given more than once",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Adds an entry to the file and prints the token; returns the exit code."""
    from crossfade.serving.config import token_file

    path: Path = options.file
    entries: list[dict[str, Any]] = []
    if path.exists():
        token_file.read(path)  # says what is wrong with it
        entries = yaml.safe_load(path.read_text())["tokens"]
    if any(entry["name"] == options.name for entry in entries):
        raise AlreadyExists(f"'{path}' has a token for '{options.name}'; remove it there first")
    token = secrets.token_urlsafe(32)
    roles = list(dict.fromkeys(options.role))
    entries.append({"name": options.name, "sha256": digest(token), "roles": roles})
    text = yaml.safe_dump({"tokens": entries}, sort_keys=False)
    made = path.with_name(path.name + ".new")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        token_file.read(made)
        made.replace(path)
    except OSError as error:
        raise InvalidArgument(f"'{path}' cannot be written: {error.strerror}") from None
    finally:
        made.unlink(missing_ok=True)
    sys.stdout.write(token + "\n")
    return 0
