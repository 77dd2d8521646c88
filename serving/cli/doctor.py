"""``crossfade doctor``: what this machine can serve with, and what to install for the rest."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import sys
from typing import Any, Final

from crossfade import __version__
from crossfade.runtimes import registry
from crossfade.serving.app import transports

_NATIVE: Final = "crossfade-native"


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One thing that may be there.

    Attributes:
        kind: ``runtime`` or ``transport``.
        version: of what it needs; ``None`` if that is not installed.
        remedy: what to do about that.
    """

    kind: str
    name: str
    version: str | None
    remedy: str = ""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "doctor",
        help="what can this machine serve with, and what is missing?",
        description="Say what this machine can serve with, and what to install for the rest.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the report; returns the exit code."""
    cores = len(os.sched_getaffinity(0))
    machine = {
        "crossfade": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {cores} cores",
        "transport": transports.automatic(),
    }
    parts = [*_transports(), *_runtimes()]
    if options.json:
        print(json.dumps({**machine, "parts": [dataclasses.asdict(part) for part in parts]}))
        return 0
    for name, value in machine.items():
        print(f"{name:12} {value}")
    width = max(len(part.name) for part in parts)
    for part in parts:
        state = part.version if part.version is not None else f"not installed: {part.remedy}"
        print(f"{part.kind:12} {part.name:{width}}  {state}")
    return 0


def _transports() -> list[Part]:
    build = f"build {_NATIVE} from the folder native/ of the sources"
    native = Part("transport", "native", None, build)
    if transports.automatic() == "native":
        import crossfade_native

        text = f"{_version(_NATIVE) or 'of unknown version'}, nghttp2"
        native = Part("transport", "native", f"{text} {crossfade_native.NGHTTP2_VERSION}")
    return [native, Part("transport", "grpcio", f"{_version('grpcio')}, serves TLS")]


def _runtimes() -> list[Part]:
    found = []
    for name, entry in registry.entries().items():
        if not entry.extra:
            found.append(Part("runtime", name, "needs nothing"))
            continue
        installed = [f"{each} {_version(each)}" for each in _libraries(entry.extra)]
        remedy = f"pip install 'crossfade[{entry.extra}]'"
        found.append(Part("runtime", name, ", ".join(installed) or None, remedy))
    return found


def _libraries(extra: str) -> list[str]:
    """Those distributions of an optional dependency that are installed, each once."""
    try:
        needs = importlib.metadata.requires("crossfade") or []
    except importlib.metadata.PackageNotFoundError:
        sys.stderr.write("crossfade: it runs from its sources and is not installed\n")
        return []
    names = [
        re.split(r"[^\w.-]", need)[0]
        for need in needs
        if re.search(rf"extra == ['\"]{extra}['\"]", need)
    ]
    return [name for name in dict.fromkeys(names) if _version(name) is not None]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
