"""``crossfade train detector``: what stands for an AutoML export of object detection."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from crossfade.serving.repository.lineage import Card
from crossfade.training.arr_coc import command, detector_entry
from crossfade.training.core import command_line
from crossfade.training.core.publishing import publish

_EPILOG: Final = """\
examples:
  crossfade train detector --data BCCD/ --name cells-detector --repository models/
  crossfade train arr-coc --export models/cells-detector/1/model.onnx --data BCCD/ \\
      --config bccd --name cells --repository models/

The same command again goes on where a run was stopped or killed, to the same result.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.description = (
        "Train a dense detector and write it as ONNX: a picture in; for each of 12 x 16 patches,"
        " whether a box of each class covers it, whether any does, and where the box's centre is."
    )
    parser.epilog = _EPILOG
    command.add_run(parser)


def run(options: argparse.Namespace) -> int:
    """Trains and publishes; returns the exit code."""
    with command.begun(options) as (begin, _):
        detector = begin.detector()
        cards: list[Card] = []

        def make(version: Path) -> None:
            cards.append(detector_entry.write(version, begin, detector))

        yaml = detector_entry.model_yaml(begin.data)
        made = publish(make, options.repository, options.name, yaml)
    sys.stdout.write(command_line.wrote(options, made, cards[0]))
    return 0
