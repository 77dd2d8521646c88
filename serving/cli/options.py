"""Options that several commands have, and what their values may be."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any, Final

from crossfade.serving.cli.numbers import memory, positive, rate, seconds
from crossfade.serving.config.server_config import ServerConfig

DEFAULTS: Final[dict[str, Any]] = {f.name: f.default for f in dataclasses.fields(ServerConfig)}


def security(parser: argparse.ArgumentParser) -> None:
    """Adds who may call."""
    option = parser.add_argument_group("who may call").add_argument
    option("--tls-cert", type=Path, metavar="PEM", help="the server's certificate: TLS, all ports")
    option("--tls-key", type=Path, metavar="PEM", help="its private key")
    option(
        "--tls-client-ca",
        type=Path,
        metavar="PEM",
        help="callers must show a certificate of this authority (mutual TLS)",
    )
    option(
        "--tokens",
        type=Path,
        metavar="YAML",
        help="callers must send a token of this file; `crossfade token` adds one",
    )
    option(
        "--admin-from",
        choices=("loopback", "anywhere"),
        default=DEFAULTS["admin_from"],
        help="from where models may be loaded and unloaded (%(default)s); anywhere needs --tokens"
        " or --tls-client-ca",
    )
    option(
        "--caller-rate",
        type=rate,
        metavar="N",
        help="requests a second for each caller, by token, else by address (no limit)",
    )


def limits(parser: argparse.ArgumentParser) -> None:
    """Adds what a request may cost, and the end of all of them."""
    parser.add_argument(
        "--max-request-bytes",
        type=positive,
        default=DEFAULTS["max_request_bytes"],
        metavar="N",
        help="refuse larger requests (%(default)s)",
    )
    number(parser, "shutdown-grace-s", "what requests in flight get after SIGTERM")


def loading(parser: argparse.ArgumentParser) -> None:
    """Adds how models are loaded, and what they may take."""
    option = parser.add_argument_group("loading models").add_argument
    option(
        "--probe",
        choices=("auto", "never"),
        default=DEFAULTS["probe"],
        help="auto: files that were never loaded on this machine are tried in another process"
        " first; never: trust them (%(default)s)",
    )
    option(
        "--environments-dir",
        type=Path,
        metavar="DIR",
        help="environments of isolated models; `crossfade env` makes them (the user's data folder)",
    )
    option(
        "--memory-budget-bytes",
        type=memory,
        metavar="N",
        help="what all models may take together, by estimate: 4GiB, say (no limit)",
    )
    option(
        "--memory-policy",
        choices=("refuse", "evict"),
        default=DEFAULTS["memory_policy"],
        help="for a model that does not fit: refuse it, or unload the ones that were not used for"
        " the longest time until somebody asks for them again (%(default)s)",
    )


def output(parser: argparse.ArgumentParser) -> None:
    """Adds where copies and logs go."""
    option = parser.add_argument
    option("--cache", type=Path, metavar="DIR", help="where versions behind a URL are copied to")
    option(
        "--log-format",
        choices=("text", "json"),
        default="text" if sys.stderr.isatty() else "json",
        help="text for people, json for collectors (text on a terminal, else json)",
    )
    option("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def number(parser: argparse.ArgumentParser, name: str, help_text: str) -> None:
    """Adds a number of seconds."""
    default = DEFAULTS[name.replace("-", "_")]
    parser.add_argument(
        f"--{name}", type=seconds, default=default, metavar="S", help=f"{help_text} (%(default)s)"
    )
