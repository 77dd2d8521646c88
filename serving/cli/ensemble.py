"""``crossfade ensemble``: learn weights, or solve a gate, from labelled data; replay weights."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crossfade.ensemble.gate import Measure
from crossfade.ensemble.learned import FILE, Learned
from crossfade.ensemble.solved import SolvedGate
from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.serving.cli import ensemble_weights, progress
from crossfade.serving.cli.numbers import positive
from crossfade.serving.config import ensemble_config as config
from crossfade.serving.config.server_config import ServerConfig

if TYPE_CHECKING:  # they import numpy
    from crossfade.serving.fitting.sample import Asking, Given

_EPILOG: Final = """\
examples:
  crossfade ensemble fit flowers --repository models/ --data pictures/ --labels labels.csv
  crossfade ensemble fit flowers --repository models/ --data rows.npz --labels rows.csv --dry-run
  crossfade ensemble fit cheap_first --repository models/ --data rows.npz --labels rows.csv \\
      --max-harm 0.005 --cost 1 20

A weighted ensemble gets weights.json, a cascade its gate. A server that polls its repository takes
the file up by itself; in mode explicit, load the ensemble again.
"""
_DEFAULT_HARM: Final = 0.005
_DEFAULT_GATE: Final = "gate.json"


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "ensemble",
        help="learn an ensemble's weights or gate from labelled data; see what feedback taught",
        description="Learn an ensemble's weights, or solve its gate, from labelled data; look at"
        " what feedback taught its weights.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="what to do", metavar="ACTION", required=True)
    fit = actions.add_parser(
        "fit",
        help="ask every member about labelled data, and write what that tells",
        description="Ask every member about labelled data, and write the weights of a weighted"
        " ensemble, or the gate of a cascade, into its folder.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = fit.add_argument
    option("name", help="the ensemble's name in the repository")
    option("--repository", required=True, metavar="DIR", help="where it and its members are")
    option(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder of images, or an .npz with an array of rows for each input; no member may"
        " have been trained on them",
    )
    option(
        "--labels",
        type=Path,
        required=True,
        metavar="CSV",
        help="right answers by name: columns file,label, or label alone for the rows of an .npz",
    )
    option("--version", type=positive, metavar="N", help="of the ensemble (the newest)")
    option("--output", metavar="NAME", help="whose scores count, where several are combined")
    option(
        "--range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="what 0 and 255 of a picture become for an input of floats",
    )
    option("--batch", type=positive, default=32, metavar="N", help="rows a request (%(default)s)")
    option(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where predictions are kept for the next time (the user's cache folder)",
    )
    option(
        "--allow-python-models",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="run the code of models in this folder, as the server is told to",
    )
    option("--dry-run", action="store_true", help="write nothing but --plot")
    option("--json", action="store_true", help="print the report as JSON")
    _weights_options(fit)
    _cascade_options(fit)
    fit.set_defaults(run=run)
    ensemble_weights.add(actions)


def _weights_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument_group("weights").add_argument
    option("--plot", type=Path, metavar="SVG", help="draw calibration and candidates")
    option(
        "--allow-unseen",
        action="store_true",
        help="learn although no row has some label: a class named background, say",
    )

    option(
        "--candidate",
        choices=("best_single", "uniform", "greedy", "convex", "stacking"),
        help="take this one's weights; weights that follow feedback begin at any but stacking's",
    )


def _cascade_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cascades")
    budget = group.add_mutually_exclusive_group()
    budget.add_argument(
        "--max-harm",
        type=_share,
        metavar="X",
        help="share of requests that may be answered worse than by the last stage alone"
        f" ({_DEFAULT_HARM:g})",
    )
    budget.add_argument(
        "--max-cost", type=_positive, metavar="X", help="of a row on average, in --cost's unit"
    )
    group.add_argument(
        "--cost",
        type=_positive,
        nargs="+",
        default=(),
        metavar="X",
        help="of a row, for each stage, in any unit (the measured median time in ms)",
    )
    group.add_argument(
        "--measure",
        choices=[one.value for one in Measure],
        help="what counts as confidence (the configuration's, or maximum)",
    )


def run(options: argparse.Namespace) -> int:
    """Fits, prints the report, writes the file; returns the exit code."""
    from crossfade.runtimes import trust
    from crossfade.serving.app.loading import loading
    from crossfade.serving.fitting import writing
    from crossfade.serving.fitting.cache import Cache
    from crossfade.serving.fitting.sample import Asking
    from crossfade.serving.lifecycle.manager import Manager, Mode
    from crossfade.serving.repository.source import open_source

    remote = "://" in options.repository
    if remote and not options.dry_run:
        raise InvalidArgument("a repository behind a URL is only read: --dry-run, or fit a copy")
    source = open_source(options.repository, options.cache)
    model = source.read(options.name)
    number = writing.version_of(model, options.version)
    section = model.config.ensemble
    _check(options, section)
    given = _given(options)
    trust.allow(options.allow_python_models)
    server = ServerConfig((options.repository,), cache=options.cache)
    manager = Manager([source], Mode.EXPLICIT, loading=loading(server))
    try:
        manager.start()
        asking = Asking(given, manager, source, Cache(_predictions(options.cache)), _advance)
        if isinstance(section, config.Weighted):
            name, content, shown = _weights(options, section, asking)
        else:
            assert isinstance(section, config.Cascade)
            name, content, shown = _gate(options, section, asking)
    finally:
        manager.close()
    place = None
    if not options.dry_run:
        folder = source.fetch(model, model.versions[number])
        place = writing.put(content, folder, name)
    if options.json:
        written = str(place) if place else None
        sys.stdout.write(json.dumps({**shown[1], "written": written}) + "\n")
    else:
        sys.stdout.write(shown[0])
        sys.stdout.write(f"written   {place}\n" if place else "nothing was written\n")
    return 0


_Shown = tuple[str, dict[str, Any]]  # for people, and for programs


def _check(options: argparse.Namespace, section: config.Ensemble | None) -> None:
    if section is None:
        raise InvalidArgument(f"'{options.name}' is no ensemble")
    if not isinstance(section, config.Weighted | config.Cascade):
        raise InvalidArgument(
            f"'{options.name}' is of kind {section.kind}, which has nothing to learn: weights are"
            " of kind weighted, gates of kind cascade"
        )
    cascade = isinstance(section, config.Cascade)
    for_other = (
        {
            "--plot": options.plot,
            "--allow-unseen": options.allow_unseen,
            "--output": options.output,
            "--candidate": options.candidate,
        }
        if cascade
        else {
            "--max-harm": options.max_harm,
            "--max-cost": options.max_cost,
            "--cost": options.cost,
            "--measure": options.measure,
        }
    )
    useless = [name for name, value in for_other.items() if value]
    if useless:
        raise InvalidArgument(f"{useless[0]} is not for an ensemble of kind {section.kind}")


def _weights(
    options: argparse.Namespace, section: config.Weighted, asking: Asking
) -> tuple[str, str, _Shown]:
    from crossfade.serving.cli import fit_picture
    from crossfade.serving.fitting import report, weights
    from crossfade.serving.lifecycle.ensembles import weighted

    known = asking.load(section)
    output, pool = weights.pool_of(section, known, options.output)
    rows = asking.collect(known, output, pool.members, pool.labels, weights.LEAST_ROWS)
    if sys.stderr.isatty():
        sys.stderr.write("learning weights ...\n")
    found = weights.learn(
        pool, rows, allow_unseen=options.allow_unseen, candidate=options.candidate
    )
    content = found.to_json()
    # As the server will read it; what it would refuse is not written.
    weighted(section, Learned.read(content, rows.names)).pools(known)
    if options.plot is not None:
        _draw(options.plot, fit_picture.draw(options.name, found, rows.truth))
    shown = report.of_weights(options.name, rows, found)
    return FILE, content, (shown, report.plain(options.name, section.kind, rows, found))


def _gate(
    options: argparse.Namespace, section: config.Cascade, asking: Asking
) -> tuple[str, str, _Shown]:
    from crossfade.serving.fitting import gate, report

    budget = gate.Budget(
        None if options.max_cost else options.max_harm or _DEFAULT_HARM,
        options.max_cost,
        tuple(options.cost),
        Measure(options.measure or section.measure or Measure.MAXIMUM.value),
    )
    if budget.costs and len(budget.costs) != len(section.stages):
        raise InvalidArgument(f"--cost needs a number for each of {len(section.stages)} stages")
    known = asking.load(section)
    cascade = gate.cascade_of(section, known)
    wanted = (cascade.output, cascade.scores, cascade.labels, budget.least_rows)
    harm = budget.harm
    least_for = f"for --max-harm {harm:g}: give more rows, or a larger --max-harm" if harm else ""
    rows = asking.collect(known, *wanted, least_for=least_for)
    found = gate.solve(section, known, rows, budget)
    content = found.to_json()
    SolvedGate.from_json(content, rows.names)
    unit = "" if budget.costs else " ms"
    text = report.of_gate(options.name, rows, found, unit)
    if section.gate is None:
        text += f"note      the thresholds of model.yaml count; put gate: {_DEFAULT_GATE} there\n"
    shown = (text, report.plain(options.name, section.kind, rows, found))
    return section.gate or _DEFAULT_GATE, content, shown


def _given(options: argparse.Namespace) -> Given:
    from crossfade.serving.fitting.sample import Given

    value_range: tuple[float, float] | None = None
    if options.range is not None:
        low, high = options.range
        if not -math.inf < low < high < math.inf:
            raise InvalidArgument("--range needs two numbers, the lower one first")
        value_range = low, high
    return Given(options.data, options.labels, value_range, options.batch)


def _predictions(cache: Path | None) -> Path | None:
    """Where predictions are kept; nowhere for a user without a home."""
    from crossfade.serving.repository.folders import cache_folder

    try:
        return cache_folder(cache) / "predictions"
    except RuntimeError:
        return None


def _advance(member: str, done: int, total: int) -> None:
    progress.rows(f"asking {member}", done, total)


def _draw(place: Path, picture: str) -> None:
    try:
        place.write_text(picture, "utf-8")
    except OSError as error:
        raise NotFound(f"'{place}' cannot be written: {error.strerror}") from None


def _share(text: str) -> float:
    value = _positive(text)
    if not value < 1:
        raise argparse.ArgumentTypeError("a share, between 0 and 1")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e12:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return value
