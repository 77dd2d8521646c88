"""The kinds of export, and what is known of one before it is loaded."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Kind(enum.Enum):
    """A kind of export by its stable id."""

    VISION_EDGE_TFLITE = "vision-edge-tflite"
    VISION_EDGE_DETECTION_TFLITE = "vision-edge-detection-tflite"
    EDGE_TPU = "edge-tpu"
    CONTAINER_CLASSIFICATION = "container-classification"
    CONTAINER_DETECTION = "container-detection"
    VIDEO_TRACKER = "video-tracker"
    TABULAR = "tabular"
    TABLES_LEGACY = "tables-legacy"
    TF_JS = "tf-js"
    CORE_ML = "core-ml"
    VERTEX_MODEL = "vertex-model"
    SAVED_MODEL = "saved-model"
    ONNX = "onnx"
    TFLITE = "tflite"
    TORCH_EXPORT = "torch-export"
    OTHER = "other"


TITLES: Mapping[Kind, str] = {
    Kind.VISION_EDGE_TFLITE: "AutoML Vision Edge export, TFLite",
    Kind.VISION_EDGE_DETECTION_TFLITE: "AutoML Vision Edge export, object detection, TFLite",
    Kind.EDGE_TPU: "TFLite model compiled for the Edge TPU",
    Kind.CONTAINER_CLASSIFICATION: "AutoML Vision Edge container export, classification",
    Kind.CONTAINER_DETECTION: "AutoML Vision Edge container export, object detection",
    Kind.VIDEO_TRACKER: "AutoML Video object tracker, TFLite",
    Kind.TABULAR: "AutoML Tabular export (Vertex AI)",
    Kind.TABLES_LEGACY: "AutoML Tables export (before Vertex AI)",
    Kind.TF_JS: "TF.js model",
    Kind.CORE_ML: "Core ML model",
    Kind.VERTEX_MODEL: "description of a model in Vertex AI",
    Kind.SAVED_MODEL: "TensorFlow SavedModel",
    Kind.ONNX: "ONNX model",
    Kind.TFLITE: "TFLite model",
    Kind.TORCH_EXPORT: "torch.export program",
    Kind.OTHER: "model",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """Where an export was found.

    Attributes:
        root: the folder that its metadata lies in.
        model: what a runtime opens: a file, or the folder of a SavedModel.
        platform: the runtime that opens it; ``None`` where none does.
        maker: who wrote it, where the files say so, for people.
    """

    kind: Kind
    root: Path
    model: Path
    platform: str | None
    maker: str = ""

    @property
    def title(self) -> str:
        """The kind in words."""
        return f"{TITLES[self.kind]} ({self.maker})" if self.maker else TITLES[self.kind]


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was read, never guessed.

    Attributes:
        value: ``None`` where the export does not say it.
        source: where it was read, or where it could be learnt.
    """

    what: str
    value: Any
    source: str


@dataclasses.dataclass(frozen=True, slots=True)
class MissingOp:
    """An op that stock TensorFlow or LiteRT does not have.

    Attributes:
        package: what brings it; empty where that is not known.
        pin: the exact requirement for pip; empty where only the package is known.
    """

    op: str
    package: str = ""
    pin: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One feature of a tabular instance, as ``instance.yaml`` declares it."""

    name: str
    type: str
    nullable: bool
    example: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Findings:
    """What an export says about itself.

    Attributes:
        labels: class names in the order of the class ids that the model answers with.
        labels_source: where they were read.
        preprocessing: what happens to a picture, and who does it.
        signatures: as they are declared (the graph may differ), by name, as plain values.
        instance: the features of a tabular instance.
        prediction: fields of a tabular prediction.
        warmup: values of ``model.yaml``'s key ``warmup``.
        missing: ops that the stock library does not have.
        container: Google's image for it.
        environment: versions that the export was made with, by package.
        sequence: the value of ``model.yaml``'s key ``sequence``; ``None`` where it keeps no state.
        refusal: why it cannot be hosted here, and what to do instead; empty where it can.
        notes: what else a reader should know.
    """

    labels: Sequence[str] = ()
    labels_source: str = ""
    preprocessing: Sequence[Fact] = ()
    signatures: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    instance: Sequence[Column] = ()
    prediction: Sequence[str] = ()
    warmup: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[MissingOp] = ()
    container: str = ""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sequence: Mapping[str, Any] | None = None
    refusal: str = ""
    notes: Sequence[str] = ()
