"""``crossfade train image-classifier``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from crossfade.serving.repository.layout import check_name
from crossfade.serving.repository.lineage import Card
from crossfade.training.core import command_line, run_folder
from crossfade.training.core.devices import place
from crossfade.training.core.publishing import publish
from crossfade.training.image_classifier import export, trainer
from crossfade.training.image_classifier.config import ImageClassifierConfig
from crossfade.training.image_classifier.data import load

_EPILOG = """\
examples:
  crossfade train image-classifier --data flowers/ --name flowers --repository models/
  crossfade train image-classifier --data flowers.csv --name flowers --repository models/ \\
      --config flowers.yaml --set epochs=30 --set optimisation.learning_rate=0.002
  torchrun --nproc-per-node 2 -m crossfade train image-classifier …

The same command again goes on where a run was stopped or killed, to the same result.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.description = (
        "Train a small convolutional network on pictures with a label each, and write it as ONNX:"
        " the next version of the model."
    )
    parser.epilog = _EPILOG
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder with one folder for each label, or a CSV file: [ML_USE,]path,label",
    )
    command_line.add_run(parser)


def run(options: argparse.Namespace) -> int:
    """Trains and publishes; returns the exit code."""
    config = ImageClassifierConfig.load(options.config, options.set)
    provenance = config.provenance(options.config, options.set)
    check_name(options.name)
    with place(config.device) as here, command_line.opened(options, here) as folder:
        data = load(options.data, config.data, config.seed)
        plain = config.model_dump(mode="json")
        if here.first:
            told = {"config": plain, "data": data.origin.sha256, "processes": here.world}
            run_folder.begin(folder, told)
        here.wait()
        with command_line.logged(options, folder, here, plain) as log:
            trained = trainer.train(config, data, folder, here, log)
        if here.first:
            cards: list[Card] = []
            made = publish(
                lambda version: cards.append(
                    export.write(version, trained, data, config, provenance=provenance, place=here)
                ),
                *(options.repository, options.name, export.model_yaml(config)),
            )
            run_folder.finish(folder, f"{options.name} version {made.name}", trained.metrics)
            sys.stdout.write(command_line.wrote(options, made, cards[0]))
        here.wait()
    return 0
