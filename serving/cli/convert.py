"""``crossfade convert``: another format of a model, kept only if it is proved to answer alike."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.serving.cli.numbers import positive, seconds
from crossfade.serving.conversion import conversion, report
from crossfade.serving.conversion.conversion import Destination, Given, Limits, Source
from crossfade.serving.conversion.targets import TARGETS
from crossfade.serving.lifecycle.loader import find_artifact
from crossfade.serving.repository.folders import read_folder
from crossfade.serving.repository.layout import NAME
from crossfade.serving.repository.source import open_source

_EPILOG: Final = """\
examples:
  crossfade convert flowers --repository models/ --to onnx
  crossfade convert flowers --repository models/ --to tflite-int8 --data pictures/ --range 0 255
  crossfade convert net.onnx --to onnx-int8 --data rows.npz --output net-int8
"""
_DEFAULTS: Final = Limits()


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "convert",
        help="make another format of a model, and prove that it answers alike",
        description="Convert a model. The result becomes the model's next version only if it"
        " answers like the source on real and adversarial inputs; the report lies beside it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("model", help="a model's name in the repository, or the path of a file or folder")
    option("--to", required=True, choices=tuple(TARGETS), help="the format to make")
    option("--repository", metavar="DIR", help="where the model is, and its next version goes")
    option("--version", type=positive, metavar="N", help="which version (the newest)")
    option("--as", dest="name", metavar="NAME", help="make it version 1 of another model")
    option("--output", type=Path, metavar="DIR", help="put it into a new folder instead")
    option("--signature", metavar="NAME", help="the signature to convert (serving_default)")
    option(
        "--after-decode",
        action="store_true",
        help="leave the graph's own decoding of files out; the input is then what that gives",
    )
    option(
        "--data",
        type=Path,
        metavar="PATH",
        help="real inputs: a folder of images, or an .npz with an array of rows for each input",
    )
    option(
        "--inputs",
        type=Path,
        metavar="JSON",
        help='the inputs beside a folder of images: rows by name, taken in turn ({"query": ["a"]})',
    )
    option("--labels", type=Path, metavar="CSV", help="right answers: columns file,label or label")
    option(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="what float inputs hold: images are scaled to it, made-up values drawn from it",
    )
    option(
        "--tolerance",
        type=_share,
        default=_DEFAULTS.tolerance,
        metavar="X",
        help="largest difference, times the largest value where that is above 1 (%(default)g)",
    )
    option(
        "--agreement",
        type=_share,
        default=_DEFAULTS.agreement,
        metavar="X",
        help="int8: least share of rows with the same first choice (%(default)g)",
    )
    option(
        "--timeout-s",
        type=seconds,
        default=_DEFAULTS.timeout_s,
        metavar="S",
        help="seconds until it gives up (%(default)g)",
    )
    option("--report", type=Path, metavar="FILE", help="where the report of a rejected one goes")
    option("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Converts, prints the report; returns the exit code: 1 if it was rejected."""
    source, destination = _source(options), _destination(options)
    given = Given(
        options.signature,
        options.after_decode,
        options.data,
        options.labels,
        options.inputs,
        _range(options.range),
    )
    if options.inputs is not None and options.data is None:
        raise InvalidArgument("--inputs goes with a folder of images (--data)")
    for path in (options.data, options.labels, options.inputs):
        if path is not None and not path.exists():
            raise NotFound(f"there is nothing at '{path}'")
    limits = Limits(options.timeout_s, options.tolerance, options.agreement)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began_s = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began_s:6.1f} s] {text}\n")
        sys.stderr.flush()

    outcome = conversion.convert(
        source, options.to, destination, given=given, limits=limits, say=say
    )
    if options.json:
        sys.stdout.write(json.dumps(report.plain(outcome.report)) + "\n")
    else:
        sys.stdout.write(report.text(outcome.report) + "\n")
    if outcome.place is not None:
        sys.stderr.write(f"kept as {outcome.place}\n")
        return 0
    kept = options.report or Path(f"{source.model.name}-{options.to}-rejected.json")
    report.write(outcome.report, kept)
    sys.stderr.write(f"rejected; the repository is as it was; the report is {kept}\n")
    return 1


def _source(options: argparse.Namespace) -> Source:
    path = Path(options.model)
    if options.repository is not None and NAME.fullmatch(options.model):
        repository = open_source(options.repository)
        model = repository.read(options.model)
        number = _version(options, list(model.versions))
        folder = repository.fetch(model, model.versions[number])
    elif not path.exists():
        hint = "" if options.repository else " (a model's name needs --repository)"
        raise NotFound(f"there is nothing at '{path}'{hint}")
    else:
        folder = (path.parent if path.is_file() else path).resolve()
        name = path.stem if path.is_file() else folder.name
        model = read_folder(name, folder)
        if path.is_file():
            return _of_file(path.resolve(), model)
        number = _version(options, list(model.versions))
        folder = folder / model.versions[number].folder
    if model.error:
        raise InvalidArgument(model.error)
    if model.config.ensemble is not None:
        names = dict.fromkeys(member.model for member in model.config.ensemble.members)
        raise InvalidArgument(f"it is an ensemble: convert its members, {', '.join(names)}")
    platform, artifact = find_artifact(model.config, folder)
    return Source(model, number, folder, platform, artifact)


def _of_file(path: Path, model: Any) -> Source:
    platform = next((n for n, e in registry.entries().items() if e.opens(path.name)), None)
    if platform is None:
        raise NotFound(f"'{path.name}' is no kind of model that this server opens")
    opened = path.parent if path.name.startswith("saved_model.") else path
    return Source(model, 1, path.parent, platform, opened)


def _version(options: argparse.Namespace, there: list[int]) -> int:
    if not there:
        raise NotFound(f"'{options.model}' holds no model")
    number: int = options.version or max(there)
    if number not in there:
        raise NotFound(f"there is no version {number}; there is {', '.join(map(str, there))}")
    return number


def _destination(options: argparse.Namespace) -> Destination:
    if options.output is not None:
        if options.name is not None:
            raise InvalidArgument("give --as or --output, not both")
        target = options.output.absolute()
        if not target.parent.is_dir():
            raise NotFound(f"'{target.parent.name}' is not a folder")
        return Destination(target.parent, target.name, versioned=False)
    if options.repository is None:
        raise InvalidArgument("say where the result goes: --output, or --repository with a name")
    if "://" in options.repository:
        raise InvalidArgument("a repository behind a URL is only read: give --output")
    name = options.name or options.model
    if not NAME.fullmatch(name):
        raise InvalidArgument("a model given by its path needs a name in the repository: --as")
    return Destination(Path(options.repository), name, versioned=True)


def _range(values: list[float] | None) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = values
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidArgument("--range needs two numbers, the lower one first")
    return low, high


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("a number above 0, at most 1")
    return value
