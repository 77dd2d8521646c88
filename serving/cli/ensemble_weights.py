"""``crossfade ensemble replay`` and ``resume``: weights that follow feedback, in their database."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import getpass
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.serving.fade.database import FadeDatabase

if TYPE_CHECKING:
    from crossfade.serving.fade.adapting_store import Adaptation, Update

_DATABASE = "the server's --fade-database: sqlite:///fades.db or postgresql://…"


def add(actions: Any) -> None:
    """Adds both actions."""
    about = "Print the history of weights that follow feedback, and make them again of the records."
    replay = _action(actions, "replay", about)
    replay.add_argument("name", help="the ensemble's")
    replay.add_argument("--database", required=True, metavar="URL", help=_DATABASE)
    replay.add_argument("--json", action="store_true", help="print JSON instead of text")
    replay.set_defaults(run=_replay)
    about = "Have frozen weights follow feedback again, from the last good ones on."
    resume = _action(actions, "resume", about)
    resume.add_argument("name", help="the ensemble's")
    resume.add_argument("--database", required=True, metavar="URL", help=_DATABASE)
    resume.set_defaults(run=_resume)


def _action(actions: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=about[0].lower() + about[1:-1],
        description=about,
        epilog=f"example:\n  crossfade ensemble {name} flowers --database sqlite:///fades.db\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _replay(options: argparse.Namespace) -> int:
    from crossfade.serving.fade.adapting_store import fault

    with _opened(options.database) as database:
        found = [
            (one, database.adapting.updates(one))
            for one in database.adapting.adaptations(options.name)
        ]
    faults = [fault(*each) for each in found]
    if options.json:
        documents = [_document(*each, why) for each, why in zip(found, faults, strict=True)]
        sys.stdout.write(json.dumps(documents) + "\n")
    else:
        for each, why in zip(found, faults, strict=True):
            sys.stdout.write(_text(*each, why))
    if any(faults):
        raise FailedPrecondition(next(filter(None, faults)))
    return 0


def _resume(options: argparse.Namespace) -> int:
    with _opened(options.database) as database:
        for one in database.adapting.resume(options.name, _operator(), time.time()):
            sys.stdout.write(
                f"{one.setup.name} version {one.setup.version} follows feedback again: "
                f"{_weights(one.setup.members, one.state.weights)}\n"
            )
    return 0


def _operator() -> str:
    try:
        return f"operator {getpass.getuser()}"[:128]
    except (OSError, KeyError):  # a container's user without a name
        return "operator"


@contextlib.contextmanager
def _opened(url: str) -> Iterator[FadeDatabase]:
    database = FadeDatabase(url, create=False)
    try:
        yield database
    finally:
        database.close()


def _text(adaptation: Adaptation, updates: Sequence[Update], why: str) -> str:
    setup, state = adaptation.setup, adaptation.state
    lines = [
        f"{setup.name} version {setup.version}: {'frozen' if state.frozen else 'follows feedback'}",
        f"  {_when(adaptation.started_s)}  begins at {_weights(setup.members, setup.fitted)}",
    ]
    for one in updates:
        after = _weights(setup.members, one.after)
        what = one.actor if one.event.action == "resume" else f"{one.request_id} is {one.truth}"
        lines.append(f"  {_when(one.event.at_s)}  {one.event.action:6}  {after}  {what}")
    made = why or "the weights are the same to the bit"
    lines.append(f"  {len(updates)} records replayed: {made}")
    return "\n".join(lines) + "\n"


def _document(adaptation: Adaptation, updates: Sequence[Update], why: str) -> dict[str, Any]:
    return {
        "setup": json.loads(adaptation.setup.to_json()),
        "state": dataclasses.asdict(adaptation.state),
        "started_s": adaptation.started_s,
        "updates": [dataclasses.asdict(one) for one in updates],
        "fault": why,
    }


def _weights(members: Sequence[str], weights: Sequence[float]) -> str:
    return ", ".join(f"{name} {weight:.4f}" for name, weight in zip(members, weights, strict=True))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
