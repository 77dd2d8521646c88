"""Crossfade and its peers under the same load, with the same models, in one run.

Run it with ``make bench-serving``, or::

    python -m crossfade.benchmarks.serving --quick --servers floor,triton

Every repetition starts each server, measures it and stops it, one after the other (A B C, then
B C A, then C A B): only one server is alive at a time. All of them alive at once would bring the
windows that are compared closer in time, but the idle ones would take CPU time on a machine with
two cores, and would share memory pages with the one under measurement, so that its PSS would depend
on its neighbours. It also gives a start time and a memory reading per repetition, and medians over
several process lives rather than over windows of one.

A window counts only if all its answers were right: the replies to other inputs are compared with
bare ONNX Runtime before, under load in the warm-up, and after it, and the size of every reply of
the load run is verified. A wrong answer fails the benchmark: exit status 1. A window in which other
programs or guests took the processor is measured again (not with ``--quick``).

The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from crossfade.benchmarks import bare, session_settings
from crossfade.benchmarks.disturbance import DISTURBED_CORES, disturbed
from crossfade.benchmarks.load import LoadError, h2load_version
from crossfade.benchmarks.machine import describe_machine
from crossfade.benchmarks.measure import measure_server
from crossfade.benchmarks.peers.peer import PeerUnavailableError
from crossfade.benchmarks.peers.registry import PEERS
from crossfade.benchmarks.plan import Life, Plan
from crossfade.benchmarks.processes import ServerError
from crossfade.benchmarks.progress import progress
from crossfade.benchmarks.report import (
    format_mapping,
    format_rows,
    format_starts,
    headline,
    jsonable,
    summarise,
    summarise_starts,
)
from crossfade.benchmarks.workspace import Workspace

SERVERS = (bare.NAME, *PEERS)
DEFAULT_SERVERS = tuple(name for name in SERVERS if name != "crossfade-grpcio")
MODELS = ("addsub", "mlp", "cnn")
DEFAULT_MODELS = ("addsub", "cnn")
CONCURRENCIES = (1, 8, 32)


@dataclass(frozen=True)
class Options:
    """The command line.

    Attributes:
        workspace: Where venvs and models are kept.
        servers: By name, in the order of the first repetition.
        repetitions: Lives of each server.
        plan: What to measure in each.
        json_file: Where to write the JSON object with every measurement.
    """

    workspace: Workspace
    servers: Sequence[str]
    repetitions: int
    plan: Plan
    json_file: Path | None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m crossfade.benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short repetition, a smoke test")
    parser.add_argument("--repetitions", type=int, help="lives of each server (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of a window (3; quick: 0.5)")
    parser.add_argument("--servers", type=_names(SERVERS), default=DEFAULT_SERVERS, metavar="A,B")
    parser.add_argument("--models", type=_names(MODELS), default=DEFAULT_MODELS, metavar="A,B")
    parser.add_argument("--concurrency", type=_numbers, default=CONCURRENCIES, metavar="N,N")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the JSON object there, with every measurement",
    )
    parser.add_argument("--workspace", type=Path, default=Path(".bench"), metavar="FOLDER")
    parsed = parser.parse_args(arguments)
    plan = Plan(
        models=parsed.models,
        concurrencies=parsed.concurrency,
        warmup_s=0.4 if parsed.quick else 1.0,
        window_s=parsed.seconds or (0.5 if parsed.quick else 3.0),
        idle_s=0.3 if parsed.quick else 1.0,
        attempts=1 if parsed.quick else 3,
    )
    return Options(
        workspace=Workspace(parsed.workspace),
        servers=parsed.servers,
        repetitions=parsed.repetitions or (1 if parsed.quick else 3),
        plan=plan,
        json_file=parsed.json,
    )


def _names(known: Sequence[str]) -> Callable[[str], Sequence[str]]:
    """A reader of comma-separated names that refuses unknown ones."""

    def read(text: str) -> Sequence[str]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: choose from {', '.join(known)}"
            )
        return names

    return read


def _numbers(text: str) -> Sequence[int]:
    return tuple(int(number) for number in text.split(","))


def prepare(options: Options) -> Mapping[str, str]:
    """Make models and virtual environments.

    Returns:
        Why a server is missing, by name.
    """
    workspace = options.workspace
    workspace.root.mkdir(parents=True, exist_ok=True)
    progress("writing models, requests and reference answers")
    command = [sys.executable, "-m", "crossfade.benchmarks.models", str(workspace.root)]
    subprocess.run(command, check=True)
    missing = {}
    for name in options.servers:
        if name == bare.NAME:
            continue
        try:
            PEERS[name].prepare(workspace)
        except PeerUnavailableError as error:
            missing[name] = str(error)
            progress(f"MISSING {name}: {error}")
    return missing


def measure(options: Options, present: Sequence[str]) -> Life:
    """Measure all servers in turn, as often as asked for.

    Returns:
        The measurements, starts and failures of all lives together.
    """
    lives = []
    for repetition in range(options.repetitions):
        # Rotated, so that no server always runs after the same one.
        turn = repetition % max(len(present), 1)
        for name in (*present[turn:], *present[:turn]):
            progress(f"repetition {repetition + 1} of {options.repetitions}: {name}")
            lives.append(_measure_one(name, options, repetition))
    return Life(
        starts=[start for life in lives for start in life.starts],
        measurements=[each for life in lives for each in life.measurements],
        failures=[failure for life in lives for failure in life.failures],
    )


def _measure_one(name: str, options: Options, repetition: int) -> Life:
    if name != bare.NAME:
        return measure_server(PEERS[name], options.workspace, options.plan, repetition)
    try:
        return bare.measure_bare(options.workspace, options.plan, repetition)
    except ServerError as error:
        return Life(starts=[], measurements=[], failures=[str(error)])


def result(
    options: Options, machine: Mapping[str, object], missing: Mapping[str, str], life: Life
) -> dict[str, object]:
    """The JSON object: the headline's ratios first, then everything they come from."""
    rows, starts = summarise(life.measurements), summarise_starts(life.starts)
    present = [name for name in options.servers if name not in missing]
    versions: dict[str, object] = {"h2load": h2load_version()}
    settings = {"onnxruntime": session_settings.DESCRIPTION}
    for name in present:
        if name == bare.NAME:
            settings[name] = bare.SETTINGS
        else:
            versions[name] = dict(PEERS[name].versions(options.workspace))
            settings[name] = PEERS[name].settings
    return {
        **headline(rows, starts),
        "ok": not life.failures,
        "failures": list(life.failures),
        "missing": dict(missing),
        "disturbed": disturbed(rows),
        "machine": dict(machine),
        "versions": versions,
        "settings": settings,
        "plan": {**asdict(options.plan), "repetitions": options.repetitions},
        "rows": [asdict(row) for row in rows],
        "starts": [asdict(start) for start in starts],
    }


def print_report(document: Mapping[str, object], life: Life) -> None:
    """Print the tables for people; the JSON line follows them."""
    rows, starts = summarise(life.measurements), summarise_starts(life.starts)
    print(format_rows(rows))
    print()
    print(format_starts(starts))
    print()
    for section in ("machine", "versions", "settings", "missing"):
        values = document[section]
        assert isinstance(values, Mapping)
        if values:
            print(f"{section}:\n{format_mapping(values)}")
    print(f"result:\n{format_mapping(headline(rows, starts))}")
    if document["disturbed"]:
        print(f"DISTURBED (more than {DISTURBED_CORES} cores elsewhere): {document['disturbed']}")
    for failure in life.failures:
        print(f"FAILED {failure}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, measure and report.

    Returns:
        0, or 1 if anything but a missing peer went wrong.
    """
    options = parse_options(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        h2load_version()
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    missing = prepare(options)
    machine = describe_machine()
    life = measure(options, [name for name in options.servers if name not in missing])
    document = result(options, machine, missing, life)
    print_report(document, life)
    print(json.dumps(jsonable(document), allow_nan=False))
    if options.json_file is not None:
        measurements = [asdict(each) for each in life.measurements]
        full = jsonable({**document, "measurements": measurements})
        options.json_file.write_text(json.dumps(full, allow_nan=False, indent=1) + "\n")
    return 1 if life.failures else 0


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """End through the context managers, so that no server is left behind."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
