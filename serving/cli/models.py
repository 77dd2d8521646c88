"""``crossfade models``: what does a running server serve, and what does it take?"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from crossfade.serving.cli import client
from crossfade.serving.cli.client import Client
from crossfade.serving.wire import open_inference as wire

_EPILOG = """\
memory is what a version takes at most, as its runtime estimates it.

A server that wants a token gets the one in the environment variable CROSSFADE_TOKEN.
"""
_HEAD: Final = ("model", "version", "state", "memory", "last use", "requests", "reason")


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "models",
        help="list the models of a running server: state, memory, last use",
        description="List the models of a running server: state, memory, last use.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    client.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Asks for the index and the statistics and prints both; returns the exit code."""
    call = Client(options).call
    index = call("RepositoryIndex", wire.RepositoryIndexRequest(), wire.RepositoryIndexResponse)
    found = call(
        "ModelStatistics", wire.ModelStatisticsRequest(), wire.ModelStatisticsResponse
    ).model_stats
    statistics = {(one.name, one.version): one for one in found}
    lines = [_line(model, statistics.get((model.name, model.version))) for model in index.models]
    if options.json:
        sys.stdout.write(json.dumps(lines, indent=2) + "\n")
    else:
        sys.stdout.write(_table([_HEAD, *(_text(line, time.time()) for line in lines)]))
    return 0


def _line(model: Any, statistics: Any) -> dict[str, Any]:
    """One version as plain values; what only a loaded one has is ``None`` for others."""
    line: dict[str, Any] = {
        "name": model.name,
        "version": model.version,
        "state": model.state or "NOT LOADED",
        "reason": model.reason,
        "memory_bytes": None,
        "last_use_ms": None,
        "requests": None,
    }
    if statistics is not None:
        line["memory_bytes"] = sum(usage.byte_size for usage in statistics.memory_usage)
        line["last_use_ms"] = statistics.last_inference or None
        line["requests"] = statistics.inference_stats.success.count
    return line


def _text(line: dict[str, Any], now_s: float) -> tuple[str, ...]:
    memory, last_ms, requests = line["memory_bytes"], line["last_use_ms"], line["requests"]
    last = "never" if requests is not None else ""
    if last_ms is not None:
        last = f"{max(0.0, now_s - last_ms / 1000):.0f} s ago"
    return (
        line["name"],
        line["version"],
        line["state"],
        "" if memory is None else f"{memory / 2**20:.1f} MiB",
        last,
        "" if requests is None else str(requests),
        line["reason"],
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
