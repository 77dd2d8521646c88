"""``crossfade fade``: move traffic from one model to its successor, step by step, with evidence."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import FailedPrecondition, NotFound
from crossfade.serving.cli import client, fade_picture
from crossfade.serving.cli.client import Client
from crossfade.serving.wire import crossfade as wire

_SERVICE: Final = "/crossfade.Fading/"
_EPILOG: Final = """\
examples:
  crossfade fade start flowers --from automl --to custom --plan fade.yaml
  crossfade fade status flowers --watch
  crossfade fade history flowers --plot fade.svg

A member is a version (3) or a label (automl) of the model, or another model's name. Clients go on
calling the model by its name, without a version or a label. The server needs --fade-database.

A server that wants a token gets the one in the environment variable CROSSFADE_TOKEN.
"""
_ACTIONS: Final = {
    "pause": "stay at this step; guardrails still roll back",
    "resume": "go on",
    "promote": "have the candidate answer everything now, whatever the evidence",
    "rollback": "have the primary answer everything now",
    "retire": "after a promotion: give up the primary, which may then be unloaded",
}
_LIVE: Final = ("RUNNING", "PAUSED")
_HEAD: Final = (
    "comparison",
    "verdict",
    "estimate",
    "is surely in",
    "goes on",
    "rolls back",
    "seen",
)
_CLEAR: Final = "\x1b[H\x1b[2J"


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "fade",
        help="move traffic from one model to its successor, step by step, with evidence",
        description="Move traffic from one model to its successor, step by step, with evidence.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="what to do", metavar="ACTION", required=True)
    start = _action(actions, "start", "begin a fade", _start)
    option = start.add_argument
    option("--from", required=True, dest="primary", metavar="MEMBER", help="who answers now")
    option(
        "--to",
        required=True,
        dest="candidate",
        metavar="MEMBER",
        help="the successor: a version, a label, or a model's name",
    )
    option(
        "--plan",
        type=Path,
        metavar="YAML",
        help="its steps and guardrails (the default steps, which take hours)",
    )
    status = _action(actions, "status", "where it stands, and what it waits for", _status, True)
    status.add_argument("--json", action="store_true", help="print JSON instead of text")
    status.add_argument("--watch", action="store_true", help="again every second, until its end")
    for name, help_text in _ACTIONS.items():
        act = _action(actions, name, help_text, _act)
        act.add_argument("--reason", default="", help="why, for the record")
        act.set_defaults(action=name, force=False)
        if name == "retire":
            act.add_argument(
                "--force",
                action="store_true",
                help="although clients sent what only the primary reads",
            )
    history = _action(actions, "history", "all decisions, with the evidence", _history)
    history.add_argument("--json", action="store_true", help="print JSON instead of text")
    history.add_argument("--plot", type=Path, metavar="SVG", help="draw a picture of it, too")


def _action(
    actions: Any, name: str, help_text: str, run: Any, optional: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?" if optional else None,
        help="what clients call" + (" (all fades)" if optional else ""),
    )
    client.add_options(parser)
    parser.set_defaults(run=run)
    return parser


def _ask(server: Client, method: str, request: Any) -> Any:
    return json.loads(server.call(method, request, wire.FadeDocument, _SERVICE).json)


def _start(options: argparse.Namespace) -> int:
    plan = ""
    if options.plan is not None:
        try:
            plan = options.plan.read_text("utf-8")
        except OSError as error:
            raise NotFound(f"the plan '{options.plan}' cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise NotFound(f"the plan '{options.plan}' cannot be read: it is not UTF-8") from None
    request = wire.StartFadeRequest(
        name=options.name, primary=options.primary, candidate=options.candidate, plan=plan
    )
    sys.stdout.write(text(_ask(Client(options), "Start", request)))
    return 0


def _act(options: argparse.Namespace) -> int:
    request = wire.ActOnFadeRequest(
        name=options.name, action=options.action, reason=options.reason, force=options.force
    )
    sys.stdout.write(text(_ask(Client(options), "Act", request)))
    return 0


def _status(options: argparse.Namespace) -> int:
    server = Client(options)
    if options.name is None:
        if options.watch:
            raise FailedPrecondition("--watch needs the NAME of a fade")
        lines = _ask(server, "List", wire.ListFadesRequest())
        if options.json:
            sys.stdout.write(json.dumps(lines, indent=2) + "\n")
        else:
            sys.stdout.write("".join(f"{_line(line)}\n" for line in lines) or "no fades\n")
        return 0
    while True:
        document = _ask(server, "Status", wire.FadeRequest(name=options.name))
        shown = json.dumps(document, indent=2) + "\n" if options.json else text(document)
        if options.watch and sys.stdout.isatty():
            shown = _CLEAR + shown
        sys.stdout.write(shown)
        sys.stdout.flush()
        if not options.watch or document["status"] not in _LIVE:
            return 0
        time.sleep(1)


def _history(options: argparse.Namespace) -> int:
    document = _ask(Client(options), "History", wire.FadeRequest(name=options.name))
    if options.plot is not None:
        try:
            options.plot.write_text(fade_picture.draw(document), "utf-8")
        except OSError as error:
            raise FailedPrecondition(
                f"'{options.plot}' cannot be written: {error.strerror}"
            ) from None
    if options.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    rows = [
        (
            _time(each["at_s"]),
            each["action"].replace("_", " "),
            f"step {each['step']}",
            each["status"],
            each["actor"],
            each["reason"],
        )
        for each in document["decisions"]
    ]
    sys.stdout.write(f"{document['name']}: from {document['from']} to {document['to']}\n")
    sys.stdout.write(_table(rows))
    return 0


def text(document: dict[str, Any]) -> str:
    """A fade's status as a person reads it."""
    lines = [_line(document)]
    if document["status"] in _LIVE:
        lines.append(
            f"  this step: {document['step_seconds']:.0f} of {document['min_time_s']:.0f} s, "
            f"{document['samples']:,} of {document['min_samples']:,} samples, "
            f"{document['labels']:,} with ground truth"
        )
        rows = [_HEAD, *(_finding(each) for each in document["findings"])]
        lines += [f"  {line}" for line in _table(rows).splitlines()]
        lines += [f"  waits: {each}" for each in document["missing"]] or ["  waits for nothing"]
    if document["answered"]:
        counts = ", ".join(f"{name} {n:,}" for name, n in sorted(document["answered"].items()))
        lines.append(f"  answered by (this server): {counts}")
    last = document["last_decision"]
    lines.append(
        f"  last decision: {last['action'].replace('_', ' ')} at {_time(last['at_s'])} by "
        f"{last['actor']}: {last['reason']}"
    )
    return "".join(f"{line}\n" for line in lines)


def _line(document: dict[str, Any]) -> str:
    where = f"{document['name']}: {document['status'].replace('_', ' ')}"
    if document["status"] in _LIVE:
        where += (
            f", step {document['step']} of {document['steps']}: {document['traffic_percent']:g} % "
            f"of the traffic, {document['mirror_percent']:g} % mirrored"
        )
    return f"{where}, from {document['from']} to {document['to']}"


def _finding(found: dict[str, Any]) -> tuple[str, ...]:
    bounds, metric = found["bounds"], found["metric"]
    above = metric in {"quality", "agreement"}
    good, bad = (">", "<") if above else ("<", ">")
    lower, upper = _number(bounds["lower"], "-inf"), _number(bounds["upper"], "inf")
    return (
        metric,
        found["verdict"],
        _number(bounds["estimate"], "-"),
        f"{lower} .. {upper}",
        "in it" if metric == "traffic_share" else f"{good} {found['good']:g}",
        "never" if metric == "traffic_share" else f"{bad} {found['harmful']:g}",
        f"{bounds['count']:,}",
    )


def _number(value: float | None, unknown: str) -> str:
    return unknown if value is None else f"{value:.4g}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)
