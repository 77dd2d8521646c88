"""A run as two models and their pipeline: TensorRT has no strings, and its engine begins behind.

``NAME-text`` makes token numbers of texts, ``NAME-vision`` does all else, and the pipeline ``NAME``
takes and gives what the single model does. What a number means is in ``NAME-text`` alone: there is
one version of it, which all versions of ``NAME-vision`` are read with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from crossfade.runtimes.core.errors import AlreadyExists, FailedPrecondition
from crossfade.runtimes.extras import require
from crossfade.serving.exports.entry import yaml_of
from crossfade.serving.repository.layout import OWN_CONFIG, check_name
from crossfade.serving.repository.lineage import Card
from crossfade.training.arr_coc import entry, export
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.run import Trained
from crossfade.training.arr_coc.text_graph import text_graph
from crossfade.training.core.publishing import publish

_OUTPUTS: Final = (*export.OUTPUTS, "unknown_words")


def publish_split(
    trained: Trained,
    metrics: Mapping[str, float],
    cards: list[Card],
    repository: Path,
    name: str,
) -> Path:
    """Publishes what of the three is not there yet, and a version of ``NAME-vision``.

    Returns:
        The folder of that version, whose card is appended to ``cards``.

    Raises:
        InvalidArgument: no model may have one of the names.
        AlreadyExists: ``NAME`` is another model.
        FailedPrecondition: ``NAME-text`` reads other words; or as ``entry.write``.
        ResourceExhausted: the disk is full.
    """
    text, vision = check_name(f"{name}-text"), check_name(f"{name}-vision")
    pipeline = _pipeline(text, vision)
    if (repository / name).exists() and _ensemble(repository / name) != pipeline:
        raise AlreadyExists(f"'{name}' is another model already: give another --name")
    if not (repository / text).exists():
        publish(lambda folder: _write_text(trained.language, folder), repository, text, {})
    elif not _reads_alike(trained.language, repository / text):
        raise FailedPrecondition(
            f"'{text}', which the versions of '{vision}' are read with, knows other words than this"
            " run: give another --name"
        )
    write = entry.maker(trained, metrics, cards, export.write_vision)
    made = publish(write, repository, vision, _vision_yaml(trained))
    if not (repository / name).exists():
        with TemporaryDirectory(prefix=".pipeline-", dir=repository) as scratch:
            folder = Path(scratch) / name
            folder.mkdir()
            (folder / OWN_CONFIG).write_text(yaml_of({"ensemble": pipeline}), "utf-8")
            os.rename(folder, repository / name)
    return made


def _pipeline(text: str, vision: str) -> dict[str, Any]:
    steps = [{"model": text}, {"model": vision}]
    return {"kind": "pipeline", "steps": steps, "outputs": list(_OUTPUTS)}


def _vision_yaml(trained: Trained) -> dict[str, Any]:
    """As of the single model; any platform, so that an engine can be one of its versions."""
    config = entry.model_yaml(trained)
    del config["platform"]
    for request in config["warmup"]:
        texts = request["inputs"].pop("query")
        request["inputs"]["tokens"] = [trained.language.tokens(row).tolist() for row in texts]
    return config


def _write_text(language: Language, folder: Path) -> None:
    onnx = require("onnx", "training", "writing ONNX files")
    onnx.save(text_graph(language), str(folder / entry.MODEL))


def _reads_alike(language: Language, model: Path) -> bool:
    files = sorted(model.glob(f"*/{entry.MODEL}"))
    wanted = text_graph(language).SerializeToString(deterministic=True)
    onnx = require("onnx", "training", "reading ONNX files")
    return bool(files) and all(
        onnx.load(str(file)).SerializeToString(deterministic=True) == wanted for file in files
    )


def _ensemble(model: Path) -> Any:
    try:
        values = yaml.safe_load((model / OWN_CONFIG).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return values.get("ensemble") if isinstance(values, dict) else None
