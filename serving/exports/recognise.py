"""Finds the one export below a place and says which kind it is, by its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, NotFound
from crossfade.serving.exports import edge, hosting, saved_model, tabular, tflite
from crossfade.serving.exports.kinds import Export, Kind

_MAX_DEPTH: Final = 12
_MAX_FOLDERS: Final = 20_000
_SAVED_MODEL: Final = "tensorflow_savedmodel"
# Formats that no runtime need open, and yet are known.
_OTHER_SUFFIXES: Final[Mapping[str, Kind]] = {
    ".mlmodel": Kind.CORE_ML,
    ".mlpackage": Kind.CORE_ML,
    ".pt2": Kind.TORCH_EXPORT,
}
_BY_PLATFORM: Final[Mapping[str, Kind]] = {
    "onnxruntime_onnx": Kind.ONNX,
    _SAVED_MODEL: Kind.SAVED_MODEL,
    "tflite": Kind.TFLITE,
}
_PICTURES: Final = frozenset({"image_bytes", "encoded_image"})


def recognise(place: Path) -> Export:
    """Says what is at ``place``: a model's file, or a folder that holds one export, at any depth.

    Raises:
        NotFound: nothing there is known.
        InvalidArgument: there are several exports; the message names them.
    """
    if place.name in saved_model.FILES and place.is_file():
        place = place.parent
    direct = _candidate(place) or _described(place)
    found = [place] if direct else list(_candidates(place)) if place.is_dir() else []
    if not found:
        raise NotFound("there is no export or model that this server knows")
    model = found[0] if len(found) == 1 else _latest(found)
    if model is None:
        names = ", ".join(f"'{path.relative_to(place)}'" for path in found[:8])
        raise InvalidArgument(f"there are several models, give the place of one: {names}")
    return _export(model)


def _candidates(folder: Path) -> Iterator[Path]:
    for seen, (base, folders, files) in enumerate(os.walk(folder, followlinks=True)):
        here = Path(base)
        if seen == _MAX_FOLDERS:
            raise InvalidArgument(f"there are more than {_MAX_FOLDERS} folders")
        models = [here / name for name in sorted(folders) if _candidate(here / name)]
        yield from models
        yield from (path for name in sorted(files) if _candidate(path := here / name))
        deep = len(here.relative_to(folder).parts) >= _MAX_DEPTH
        inner = {path.name for path in models}
        folders[:] = sorted(n for n in folders if not (deep or n in inner or n.startswith(".")))


def _candidate(path: Path) -> bool:
    if path.is_dir():
        known = path.suffix == ".mlpackage" or _platform(path) is not None
        return known or saved_model.is_folder_of(path)
    if path.name in saved_model.FILES or path.name.startswith("."):  # its folder is the model
        return False
    if path.suffix in _OTHER_SUFFIXES or _platform(path) is not None:
        return True
    return path.name == "model.json" and _described(path)


def _described(path: Path) -> bool:
    return path.suffix == ".json" and _json_kind(hosting.read_json(path)) is not None


def _platform(path: Path) -> str | None:
    name = path.name + "/" * path.is_dir()
    return next((n for n, entry in registry.entries().items() if entry.opens(name)), None)


def _json_kind(document: Mapping[str, Any]) -> Kind | None:
    if "weightsManifest" in document:
        return Kind.TF_JS
    return Kind.VERTEX_MODEL if hosting.describes_vertex_model(document) else None


def _latest(found: list[Path]) -> Path | None:
    """Of several that belong together, the one that a server would choose.

    That is the highest of some version folders beside each other, or the compiled one of a model
    for the Edge TPU and its twin.
    """
    if (compiled := edge.leading(found)) is not None:
        return compiled
    same = len({path.parent for path in found}) == 1
    if same and all(path.is_dir() and path.name.isdecimal() for path in found):
        return max(found, key=lambda path: int(path.name))
    return None


def _export(model: Path) -> Export:
    if model.is_dir() and saved_model.is_folder_of(model):
        return _of_saved_model(model)
    platform = _platform(model)
    kind = _OTHER_SUFFIXES.get(model.suffix)
    if kind is None and platform is None:
        kind = _json_kind(hosting.read_json(model))
    if platform == "tflite":
        return _of_tflite(model)
    return Export(
        kind or _BY_PLATFORM.get(platform or "", Kind.OTHER), model.parent, model, platform
    )


def _of_saved_model(model: Path) -> Export:
    # predict/001/ below the metadata, or beside them where it was imported.
    around = (model, *list(model.parents)[:2])
    root = next((p for p in around if (p / tabular.ENVIRONMENT).is_file()), None)
    if root is not None and (root / tabular.INSTANCE).is_file():
        return Export(Kind.TABULAR, root, model, _SAVED_MODEL)
    if any(p.name.startswith("tf_saved_model-") and p.parent.name == "tbl" for p in around):
        return Export(Kind.TABLES_LEGACY, model, model, _SAVED_MODEL)
    return Export(_saved_model_kind(model), model, model, _SAVED_MODEL)


def _saved_model_kind(model: Path) -> Kind:
    try:
        graph = saved_model.read(model)
    except CrossfadeError:
        return Kind.SAVED_MODEL  # loading it says what is wrong
    for signature in graph.signatures.values() if graph else ():
        if not _PICTURES & signature["inputs"].keys():
            continue
        outputs = signature["outputs"].keys()
        if {"detection_boxes", "detection_scores"} <= outputs:
            return Kind.CONTAINER_DETECTION
        if {"labels", "scores"} <= outputs:
            return Kind.CONTAINER_CLASSIFICATION
    return Kind.SAVED_MODEL


def _of_tflite(model: Path) -> Export:
    folder = model.parent
    maker = ""
    if (folder / "tflite_metadata.json").is_file():
        maker = "Vertex AI"
    elif (folder / "manifest.json").is_file():
        maker = "AutoML or Firebase"
    kind = _tflite_kind(model, bool(maker) or (folder / "dict.txt").is_file())
    return Export(kind, folder, model, "tflite", maker)


def _tflite_kind(model: Path, exported: bool) -> Kind:
    try:
        graph = tflite.read(model)
    except CrossfadeError:  # LiteRT is not installed, or the file is damaged: loading says which
        compiled = model.name.startswith("edgetpu_") or model.stem.endswith("_edgetpu")
        if compiled:
            return Kind.EDGE_TPU
        return Kind.VISION_EDGE_TFLITE if exported else Kind.TFLITE
    if tflite.EDGE_TPU_OP in graph.custom:
        return Kind.EDGE_TPU
    if tflite.DETECTION_OP in graph.custom:
        if tflite.states(graph):
            return Kind.VIDEO_TRACKER
        return Kind.VISION_EDGE_DETECTION_TFLITE if exported else Kind.TFLITE
    return Kind.VISION_EDGE_TFLITE if exported else Kind.TFLITE
