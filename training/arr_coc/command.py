"""``crossfade train arr-coc``: from a detection set to a served query-aware model."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import NotFound
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.source import opened
from crossfade.serving.repository.layout import check_name
from crossfade.serving.repository.lineage import Card
from crossfade.training.arr_coc import entry, pipeline
from crossfade.training.arr_coc import run as runs
from crossfade.training.arr_coc.config import ArrCocConfig
from crossfade.training.arr_coc.data import Source
from crossfade.training.arr_coc.evaluate import evaluate
from crossfade.training.arr_coc.summary import card_metrics
from crossfade.training.core import command_line, run_folder
from crossfade.training.core.publishing import publish

EVALUATION: Final = "evaluation.json"
_CONFIGS: Final = Path(__file__).parent / "configs"
_EPILOG: Final = """\
examples:
  crossfade train arr-coc --data BCCD/ --config bccd --name cells --repository models/
  crossfade train arr-coc --data import.csv --images pictures/ --name cells \\
      --repository models/ --set heads.epochs=20
  crossfade train arr-coc --export model.tflite --data BCCD/ --config bccd --name cells \\
      --repository models/ --set backbone.epochs=12

--data is a VOC folder, or an import file of Vertex AI for bounding boxes (.csv, .jsonl).
The same command again goes on where a run was stopped or killed, to the same result.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.description = (
        "Train a dense detector (on the frozen layers of an export, where one is given), freeze"
        " it, train query-aware heads on it, compare them with the detector on the test split, and"
        " write both as one ONNX model: a picture and a text in, tokens for each patch out."
    )
    parser.epilog = _EPILOG
    add_run(parser)
    parser.add_argument(
        "--split-text",
        action="store_true",
        help="write NAME-text, NAME-vision and their pipeline NAME, for runtimes without strings",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds what a run on a detection set is told."""
    option = parser.add_argument
    option("--name", required=True, help="what clients will call the model")
    option("--repository", required=True, type=Path, metavar="DIR", help="where it is written")
    option("--data", required=True, type=Path, metavar="PATH", help="the detection set")
    option("--images", type=Path, metavar="DIR", help="where an import file's pictures are")
    option("--export", metavar="EXPORT", help="what the detector begins with: file, folder or URL")
    option("--signature", default="", help="of a SavedModel; default serving_default")
    option(
        "--config",
        default="",
        metavar="NAME|FILE",
        help=f"YAML, or one of {_shipped()}; the defaults without one",
    )
    option(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one value, such as heads.epochs=20; may be repeated",
    )
    option("--run-dir", type=Path, metavar="DIR", help="checkpoints and results (runs/NAME)")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--split-seed", type=int, metavar="N", help="draw the splits anew")
    split.add_argument("--contiguous", action="store_true", help="split into blocks by name")


@contextlib.contextmanager
def begun(options: argparse.Namespace) -> Iterator[tuple[runs.Run, Path]]:
    """Opens what ``add_run``'s options name; holds the run's folder, which is given, too."""
    check_name(options.name)
    config = ArrCocConfig.load(config_file(options.config), options.set)
    folder: Path = options.run_dir or Path("runs") / options.name
    source = Source(options.data, options.images, options.split_seed, options.contiguous)
    with run_folder.held(folder), export_of(options.export, options.signature) as export:
        run = runs.Run(source, config, folder, export)
        for warning in run.data.warnings:
            sys.stderr.write(f"warning: {warning}\n")
        yield run, folder


@contextlib.contextmanager
def export_of(given: str | None, signature: str = "") -> Iterator[runs.Export | None]:
    """Opens an export, if one is given; raises what ``opened`` and ``recognise`` raise."""
    if given is None:
        yield None
        return
    with opened(given) as source:
        yield runs.Export(recognise(source).model, signature)


def run(options: argparse.Namespace) -> int:
    """Trains, evaluates and publishes; returns the exit code."""
    with begun(options) as (begin, folder):
        trained = begin.trained()
        found = evaluated(trained, folder)
        metrics = card_metrics(found)
        cards: list[Card] = []
        if options.split_text:
            made = pipeline.publish_split(trained, metrics, cards, options.repository, options.name)
        else:
            made = publish(
                entry.maker(trained, metrics, cards),
                *(options.repository, options.name, entry.model_yaml(trained)),
            )
    sys.stdout.write(command_line.wrote(options, made, cards[0]))
    return 0


def evaluated(trained: runs.Trained, folder: Path) -> dict[str, Any]:
    """Evaluates a run once; what was found is kept in its folder."""
    file = folder / EVALUATION
    if not file.exists():
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(evaluate(trained)), "utf-8")
        beside.replace(file)
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def config_file(name: str) -> Path | None:
    """Returns the file of a shipped configuration, or the path as it is.

    Raises:
        NotFound: a plain name that is not shipped.
    """
    if not name:
        return None
    if "/" in name or "." in name:
        return Path(name)
    file = _CONFIGS / f"{name}.yaml"
    if not file.exists():
        raise NotFound(f"no configuration '{name}' is shipped; there are {_shipped()}")
    return file


def _shipped() -> str:
    return ", ".join(sorted(path.stem for path in _CONFIGS.glob("*.yaml")))
