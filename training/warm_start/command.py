"""``crossfade train warm-start``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports.recognise import recognise
from crossfade.serving.exports.source import opened
from crossfade.serving.repository.layout import check_name
from crossfade.serving.repository.lineage import Card, Origin, digest_folder
from crossfade.training.backbones.feature_cache import FeatureCache
from crossfade.training.backbones.opening import open_backbone
from crossfade.training.core import command_line, run_folder
from crossfade.training.core.devices import place
from crossfade.training.core.publishing import publish
from crossfade.training.image_classifier import export
from crossfade.training.image_classifier.data import load
from crossfade.training.warm_start import trainer
from crossfade.training.warm_start.config import WarmStartConfig

_EPILOG = """\
examples:
  crossfade train warm-start --export model.tflite --data flowers/ --name flowers \\
      --repository models/
  crossfade train warm-start --export saved_model/ --data flowers.csv --name flowers \\
      --repository models/ --set pixels=0..255 --set stages=3

The same command again goes on where a run was stopped or killed, to the same result.
"""
_SIDE = 224
TASK = "warm-start"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.description = (
        "Cut the features out of an export (SavedModel, TFLite, ONNX), train a head on them, then"
        " the last stages with it, and write the result as ONNX: the next version of the model."
    )
    parser.epilog = _EPILOG
    option = parser.add_argument
    option("--export", required=True, metavar="EXPORT", help="a file, a folder or a URL")
    option("--signature", default="", help="of a SavedModel; default serving_default")
    option(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="a folder with one folder for each label, or a CSV file: [ML_USE,]path,label",
    )
    option("--cache", type=Path, metavar="DIR", help="of features (the run's folder)")
    command_line.add_run(parser)


def run(options: argparse.Namespace) -> int:
    """Trains and publishes; returns the exit code."""
    config = WarmStartConfig.load(options.config, options.set)
    check_name(options.name)
    with (
        place(config.device) as here,
        opened(options.export) as source,
        command_line.opened(options, here) as folder,
    ):
        path = recognise(source).model
        backbone = open_backbone(
            path,
            options.signature,
            config.cut or "",
            config.pixels or "",
            moving_statistics=config.moving_statistics,
        )
        side = backbone.side or config.data.size or _SIDE
        if config.data.size not in (None, side):
            raise InvalidArgument(f"data.size is {config.data.size}, and the export takes {side}")
        how = config.data.data(side, backbone.channels)
        data = load(options.data, how, config.seed)
        plain = {**config.model_dump(mode="json"), "export_sha256": digest_folder(path)}
        run_folder.begin(folder, {"config": plain, "data": data.origin.sha256})
        words = f"{side} {how.color} {how.resize.model_dump_json()} pooled"
        where = options.cache or folder / "features"
        cache = FeatureCache(where, backbone.digest(), words, config.cache_bytes)
        with command_line.logged(options, folder, here, plain) as log:
            trained = trainer.train(config, data, backbone, cache, folder, place=here, log=log)
        cards: list[Card] = []

        def make(version: Path) -> None:
            told: dict[str, Any] = {"task": TASK, "seed": config.seed, "config": plain}
            told["provenance"] = config.provenance(options.config, options.set)
            told["export"] = Origin(name=path.name, sha256=plain["export_sha256"], counts={})
            classifier, metrics = trained.classifier, trained.metrics
            cards.append(
                export.write_version(version, classifier, metrics, data, told=told, place=here)
            )

        yaml = export.model_yaml_of(how)
        made = publish(make, options.repository, options.name, yaml)
        run_folder.finish(folder, f"{options.name} version {made.name}", trained.metrics)
        sys.stdout.write(command_line.wrote(options, made, cards[0]))
    return 0
