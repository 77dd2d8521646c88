"""Reads the graph of any export whose format is known."""

from __future__ import annotations

from pathlib import Path

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports import saved_model
from crossfade.serving.exports.recognise import recognise
from crossfade.training.weights import onnx_file, savedmodel_file, tflite_file
from crossfade.training.weights.graph import Graph


def read(path: Path, signature: str = "") -> Graph:
    """Reads a SavedModel's folder, a ``.tflite`` or an ``.onnx`` file, or a folder with one.

    Raises:
        InvalidArgument: it is none of these, or there are several; the message names them.
        NotFound: the folder has none.
        LoadFailed: it is damaged.
        MissingExtra: the library that its format needs is not installed.
    """
    if path.is_dir() and not saved_model.is_folder_of(path):
        path = recognise(path).model
    if path.is_dir() and saved_model.is_folder_of(path):
        return savedmodel_file.read(path, signature)
    if path.suffix == ".tflite":
        return tflite_file.read(path)
    if path.suffix == ".onnx":
        return onnx_file.read(path)
    raise InvalidArgument(
        "weights are read from a SavedModel's folder, a .tflite file or an .onnx file"
    )
