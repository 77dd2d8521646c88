"""What an export becomes in a repository: files of a version, and what ``model.yaml`` must say."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.serving.exports import edge, image_keys, onnx_files, saved_model, tabular
from crossfade.serving.exports.kinds import Export, Findings, Kind
from crossfade.serving.exports.pictures import METADATA
from crossfade.serving.repository.layout import LABEL_FILES

_LABELS: Final = LABEL_FILES[0]
# Small files that say what an export is; they go along so that the entry says it, too.
_TELLING: Final = ("dict.txt", METADATA, "manifest.json")
_TABULAR_TELLING: Final = (
    *(tabular.ENVIRONMENT, tabular.INSTANCE, tabular.PREDICTION),
    *("feature_attributions.yaml", "transformations.pb", "tables_server_metadata.pb"),
)
_HEAD: Final = "# Written by `crossfade`; yours to change.\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One version of a model, before it is written.

    Attributes:
        files: where each file of the version's folder is now, by its path there.
        texts: what is written into files of the version's folder, by their names.
        config: values of ``model.yaml``; empty where everything is derived from the files.
    """

    files: Mapping[str, Path]
    texts: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        """Of all files to be copied."""
        return sum(path.stat().st_size for path in self.files.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """What the export does not say, and whoever imports it may.

    Attributes:
        fallback: what serves where there is no Edge TPU (``cpu``).
        images: clients send image files; the filter that resizes them.
    """

    fallback: str | None = None
    images: str | None = None


NO_WISHES: Final = Wishes()


def plan(export: Export, found: Findings, wishes: Wishes = NO_WISHES) -> Entry:
    """Decides what is written.

    Raises:
        FailedPrecondition: it cannot be hosted; the message says what to do instead.
        InvalidArgument, LoadFailed: files that belong to the model are not there, or it is no
            model that a wish could be granted for.
    """
    if found.refusal:
        raise FailedPrecondition(found.refusal)
    if wishes.fallback is not None and export.kind is not Kind.EDGE_TPU:
        raise InvalidArgument("--fallback is for models that are compiled for the Edge TPU")
    files = _files(export)
    written = bool(found.labels) and not any(name in files for name in LABEL_FILES)
    texts = {_LABELS: "".join(f"{name}\n" for name in found.labels)} if written else {}
    return Entry(files, texts, _config(export, found, wishes))


def yaml_of(config: Mapping[str, Any]) -> str:
    """``model.yaml`` with these values."""
    return _HEAD + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _config(export: Export, found: Findings, wishes: Wishes) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if export.kind is Kind.EDGE_TPU:
        config["options"] = edge.options(export.model, wishes.fallback)
    if wishes.images is not None:
        config.update(image_keys.keys(export, found, wishes.images))
    if found.sequence is not None:
        config["sequence"] = dict(found.sequence)
    if export.kind in (Kind.TABULAR, Kind.TABLES_LEGACY):
        config.update(tabular.config(found))
    if found.warmup:
        config["warmup"] = [dict(request) for request in found.warmup]
    return config


def _files(export: Export) -> dict[str, Path]:
    if export.model.is_dir() and not saved_model.is_folder_of(export.model):
        # A folder with a name that a runtime opens (model.savedmodel/) stays one.
        return _below(export.model, export.model.name)
    if export.model.is_dir():
        telling = _TABULAR_TELLING if export.kind is Kind.TABULAR else _TELLING
        return {**_beside(export.root, telling), **_below(export.model, "")}
    if export.kind is Kind.EDGE_TPU:
        return {**_beside(export.root, _TELLING), **edge.files(export.model)}
    if export.platform == "tflite":
        return {**_beside(export.root, _TELLING), "model.tflite": export.model}
    if export.platform == "onnxruntime_onnx":
        return {**_weights(export.model), **_labels(export.root), "model.onnx": export.model}
    return {**_labels(export.root), export.model.name: export.model}


def _beside(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    return {name: path for name in names if (path := folder / name).is_file()}


def _labels(folder: Path) -> dict[str, Path]:
    return _beside(folder, LABEL_FILES)


def _below(folder: Path, prefix: str) -> dict[str, Path]:
    """Every file below a folder but hidden ones (a manifest of a cache, ``.DS_Store``)."""
    found: dict[str, Path] = {}
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                path = Path(base, name)
                found[(Path(prefix) / path.relative_to(folder)).as_posix()] = path
    return found


def _weights(model: Path) -> dict[str, Path]:
    found = {name: model.parent / name for name in sorted(onnx_files.external(model))}
    for name, path in found.items():
        if not path.is_file():
            raise InvalidArgument(f"the model keeps weights in '{name}', which is not beside it")
    return found
