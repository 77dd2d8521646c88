"""Looks into an export: labels, preprocessing, schema, warm-up requests, missing ops, refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, MissingExtra
from crossfade.serving.exports import (
    hosting,
    labels,
    operators,
    pictures,
    saved_model,
    tabular,
    tflite,
    warmup,
)
from crossfade.serving.exports.kinds import Export, Findings, Kind, MissingOp
from crossfade.serving.repository.layout import LABEL_FILES

_MANIFEST: Final = "manifest.json"


def look(export: Export) -> Findings:
    """Reads what the files of an export say; loads no model and needs no runtime's library.

    What cannot be read becomes a note: the export may still be served.
    """
    refused = hosting.refusal(export)
    notes: list[str] = []
    names, source = _labels(export, notes)
    found = Findings(labels=names, labels_source=source, refusal=refused)
    if export.model.is_dir() and saved_model.is_folder_of(export.model):
        found = _of_saved_model(export, found, notes)
    elif export.platform == "tflite":
        found = _of_tflite(export, found, notes)
    return dataclasses.replace(found, notes=tuple(notes))


def _of_saved_model(export: Export, found: Findings, notes: list[str]) -> Findings:
    try:
        graph = saved_model.read(export.model)
    except CrossfadeError as error:
        notes.append(error.message)
        return found
    if graph is None:
        notes.append("saved_model.pbtxt is text: its ops and signatures are seen when it is loaded")
        return found
    missing, how = operators.missing(graph.ops)
    if missing:
        notes.append(f"missing ops are known by {how}")
    requests, left_out = warmup.read(export.model, graph.signatures)
    notes += left_out
    found = dataclasses.replace(
        found,
        signatures=graph.signatures,
        missing=missing,
        warmup=requests,
        preprocessing=pictures.of_graph(graph),
    )
    if export.kind in (Kind.TABULAR, Kind.TABLES_LEGACY):
        return _of_tabular(export, found, notes)
    if missing:
        return dataclasses.replace(found, refusal=_missing(missing))
    return found


def _of_tabular(export: Export, found: Findings, notes: list[str]) -> Findings:
    fields = _or_note(lambda: tabular.prediction(export.root), (), notes)
    found = dataclasses.replace(
        found,
        instance=_or_note(lambda: tabular.columns(export.root), (), notes),
        prediction=[field.name for field in fields],
    )
    if not found.labels and (classes := tabular.classes(fields)):
        found = dataclasses.replace(found, labels=classes, labels_source=tabular.PREDICTION)
    container, versions = _or_note(lambda: tabular.environment(export.root), ("", {}), notes)
    found = dataclasses.replace(found, container=container, environment=versions)
    lacking = [op for op in found.missing if op.package != operators.STRUCT2TENSOR]
    if lacking:
        return dataclasses.replace(found, refusal=tabular.reason(found, lacking))
    return found


def _of_tflite(export: Export, found: Findings, notes: list[str]) -> Findings:
    try:
        graph = tflite.read(export.model)
    except MissingExtra as error:
        notes.append(f"not looked into: {error.message}")
        return found
    except CrossfadeError as error:
        notes.append(error.message)
        return found
    missing = [
        MissingOp(op, "tensorflow") if op.startswith("Flex") else MissingOp(op)
        for op in graph.missing
        if op != tflite.EDGE_TPU_OP
    ]
    if export.kind is Kind.EDGE_TPU:
        notes.append("parts of it run on an Edge TPU only: it needs the device and its library")
    facts = pictures.of_tflite(graph, export.root)
    if export.kind is not Kind.TFLITE:
        facts += pictures.softmax_or_logistic(graph)
    return dataclasses.replace(
        found,
        missing=missing,
        preprocessing=facts,
        signatures={"serving_default": _signature(graph)},
        sequence=_sequence(graph) if export.kind is Kind.VIDEO_TRACKER else None,
        refusal=_missing(missing) if missing else found.refusal,
    )


def _sequence(graph: tflite.Graph) -> Mapping[str, Any]:
    """States begin at the real value 0, which is the zero point of a quantised tensor."""
    return {
        "states": [
            {
                "input": into.name,
                "output": out.name,
                "initial": into.quantization[1] if into.quantization else 0,
            }
            for into, out in tflite.states(graph)
        ]
    }


def _signature(graph: tflite.Graph) -> Mapping[str, Any]:
    def tensors(side: Sequence[tflite.Tensor]) -> dict[str, Any]:
        return {t.name: {"dtype": t.dtype, "shape": list(t.shape) or None} for t in side}

    return {"inputs": tensors(graph.inputs), "outputs": tensors(graph.outputs), "method": "predict"}


def _missing(missing: Sequence[MissingOp]) -> str:
    """Which ops stock libraries lack, and what has them."""
    parts = [
        f"{op.op} ({op.pin or op.package})" if op.package else f"{op.op} (of an unknown package)"
        for op in missing
    ]
    return (
        f"it needs ops that this server does not have: {', '.join(parts)}; export it without them,"
        " or serve it where they are"
    )


def _labels(export: Export, notes: list[str]) -> tuple[Sequence[str], str]:
    """Class names and the file that they were in, the best known place first."""
    # The folder of a version has the labels of its model beside it.
    places = [export.root, *([export.root.parent] if export.root.name.isdecimal() else [])]
    named = hosting.read_json(export.root / _MANIFEST).get("labelsFile")
    listed = [named] if isinstance(named, str) and "/" not in named else []
    for place in places:
        for name in dict.fromkeys([*listed, *reversed(LABEL_FILES)]):
            if (path := place / name).is_file() and (found := _read_labels(path, notes)):
                return found, path.name
        maps = sorted(place.glob("*.pbtxt")) if export.platform == "tflite" else []
        if len(maps) == 1 and (found := _read_labels(maps[0], notes)):
            return found, f"{maps[0].name} (ids from 1; class ids from 0)"
    if export.platform == "tflite" and (packed := tflite.packed_labels(export.model)):
        name, content = packed
        found = _or_note(lambda: labels.of_lines(content, name), [], notes)
        return found, f"{name}, packed into {export.model.name}"
    return (), ""


def _read_labels(path: Path, notes: list[str]) -> list[str]:
    found: list[str] = _or_note(lambda: labels.read(path), [], notes)
    return found


def _or_note(read: Any, otherwise: Any, notes: list[str]) -> Any:
    try:
        return read()
    except InvalidArgument as error:
        notes.append(error.message)
        return otherwise
