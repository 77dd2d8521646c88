"""``crossfade import``: take an export into a model repository."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any, get_args

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed, MissingExtra
from crossfade.serving.cli.numbers import positive
from crossfade.serving.cli.progress import bar
from crossfade.serving.config.model_config import Batching, Isolation
from crossfade.serving.config.processing_config import Filter
from crossfade.serving.exports import edge
from crossfade.serving.exports.entry import Entry, Wishes, plan
from crossfade.serving.exports.findings import look
from crossfade.serving.exports.kinds import Export, Findings, Kind
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.source import opened
from crossfade.serving.exports.unpack import SUFFIXES
from crossfade.serving.exports.writing import Staged, staged
from crossfade.serving.lifecycle.loader import Loading, load
from crossfade.serving.repository.folders import read_folder
from crossfade.serving.repository.layout import OWN_CONFIG, TRITON_CONFIG

_EPILOG = """\
examples:
  crossfade import gs://bucket/model-123/tflite/2026 --name flowers --repository models/
  crossfade import export.tar.gz --name flowers --repository models/ --version 7
  crossfade import export/ --name flowers --repository models/ --images bilinear

The version is tried before it is put in its place, and put there in one step: a server that
follows the repository sees all of it or nothing. What it is and what it lacks: crossfade inspect.
"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "import",
        help="take an export into a model repository",
        description="Take an export of AutoML, or a custom model, into a model repository.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option(
        "place",
        metavar="EXPORT",
        help=f"a file, a folder, an archive ({', '.join(SUFFIXES)}) or a URL (gs://, s3://)",
    )
    option("--name", required=True, help="what clients will call the model")
    option("--repository", required=True, type=Path, metavar="DIR", help="where it is written")
    option("--version", type=positive, metavar="N", help="its number (the next free one)")
    option(
        "--force",
        action="store_true",
        help="replace the version, and keys of model.yaml that say otherwise",
    )
    option(
        "--images",
        choices=get_args(Filter),
        metavar="FILTER",
        help="clients send image files: how they are resized, which the export does not say"
        f" ({', '.join(get_args(Filter))})",
    )
    option(
        "--fallback",
        choices=("cpu",),
        help="where there is no Edge TPU, the model's twin for the CPU beside it serves",
    )
    option(
        "--environments-dir",
        type=Path,
        metavar="DIR",
        help="where environments of isolated models are (the user's data folder)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Imports and says what was done; returns the exit code."""
    if ":/" in str(options.repository):  # a URL, as a path writes it
        raise InvalidArgument("--repository is a local folder: versions are renamed into place")
    with opened(options.place, progress=bar("fetching")) as place:
        _refuse_a_repository(place)
        export = recognise(place)
        found = look(export)
        entry = plan(export, found, Wishes(options.fallback, options.images))
        with staged(
            options.repository,
            options.name,
            entry,
            version=options.version,
            force=options.force,
            progress=bar("copying"),
        ) as stage:
            untried = _try(stage, options.name, export, Loading(None, options.environments_dir))
            target = stage.publish(options.force)
        notes = [
            *found.notes,
            *_told(export, options),
            f"not tried: {untried}" if untried else "tried: it loads here",
        ]
        lines = [
            *_written(target, export, found, entry, stage.configured),
            *_from(place, export),
            *(f"  {note}" for note in notes),
        ]
        lines += ["next:", *_next(options, target, export, found)]
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _told(export: Export, options: argparse.Namespace) -> list[str]:
    """What the options could have said."""
    if export.kind is Kind.EDGE_TPU:
        said = edge.note(export.model, options.fallback)
        return [said] if said else []
    return []


def _refuse_a_repository(place: Path) -> None:
    for name in (OWN_CONFIG, TRITON_CONFIG):
        if place.is_dir() and (place / name).exists():
            raise InvalidArgument(
                f"it has a {name}, so it is a model of a repository and no export: copy its folder"
                " into the repository"
            )


def _try(stage: Staged, name: str, export: Export, loading: Loading) -> str:
    """Loads the version as a server would; returns why that was not possible here.

    Raises:
        LoadFailed: it cannot be served; nothing is written.
    """
    model = read_folder(name, stage.folder)
    # Measuring the latency curve is the server's business, and a crash not to be this process's.
    apart = registry.entries()[export.platform].native_parser if export.platform else False
    own = model.config.isolation or (Isolation(process=True) if apart else None)
    config = model.config.model_copy(update={"batching": Batching(), "isolation": own})
    (version,) = model.versions.values()
    try:
        tried = dataclasses.replace(model, config=config)
        load(tried, version, stage.folder / version.folder, loading).retire()
    except MissingExtra as error:
        return error.message
    except LoadFailed as error:
        if export.kind is not Kind.EDGE_TPU:
            raise LoadFailed(
                f"nothing was written, since it cannot be served: {error.message}"
            ) from error
        return error.message
    return ""


def _written(
    target: Path, export: Export, found: Findings, entry: Entry, configured: bool
) -> list[str]:
    names = sorted(entry.files.keys() | entry.texts.keys())
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    lines = [
        f"{target.parent.name} version {int(target.name)}: {export.title}",
        f"  wrote {target}: {shown} ({entry.size_bytes:,} bytes)",
    ]
    if found.labels:
        lines.append(f"  {len(found.labels)} labels of {found.labels_source}")
    if entry.config:
        now = "has" if configured else "stays as it was; the import has"
        lines.append(f"  {OWN_CONFIG} {now} {', '.join(entry.config)}")
    return lines


def _from(place: Path, export: Export) -> list[str]:
    """Which of the files was taken, where there was a choice."""
    inside = export.model != place and export.model.is_relative_to(place)
    return [f"  taken from '{export.model.relative_to(place)}'"] if inside else []


def _next(options: argparse.Namespace, target: Path, export: Export, found: Findings) -> list[str]:
    serve = f"  crossfade serve --model-repository {shlex.quote(str(options.repository))}"
    if found.preprocessing and export.platform == "tflite" and not found.sequence:
        return [serve, f"  crossfade infer {options.name} picture.jpg --top 3"]
    return [serve, f"  crossfade inspect {shlex.quote(str(target))}"]
