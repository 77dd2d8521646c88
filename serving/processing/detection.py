"""Detection: the outputs of AutoML's containers out of those of any detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from crossfade.ensemble.boxes import surest
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Tensor, Tensors, TensorSpec
from crossfade.serving.config.processing_config import Postprocess, Role
from crossfade.serving.processing.answer import Outputs
from crossfade.serving.processing.boxes import to_yxyx
from crossfade.serving.processing.framing import Frame
from crossfade.serving.processing.scores import activate, label_texts

# TensorFlow's Object Detection API, and the four outputs of TFLite_Detection_PostProcess in order.
_KNOWN: Final[Mapping[Role, tuple[str, str]]] = {
    "boxes": ("detection_boxes", "TFLite_Detection_PostProcess"),
    "classes": ("detection_classes", "TFLite_Detection_PostProcess:1"),
    "scores": ("detection_scores", "TFLite_Detection_PostProcess:2"),
    "count": ("num_detections", "TFLite_Detection_PostProcess:3"),
}
_DEFAULT_MOST: Final = 100
# Of boxes with a score for each class: what is looked at for overlaps is bounded.
_MAX_CANDIDATES: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """Boxes of one row, the best first; of all arrays the first dimension is the boxes."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class Detection:
    """See ``Answer``. Of M boxes a row, those that are too many are zeros and empty texts.

    ``detection_boxes`` FP32 [rows, M, 4], ``detection_scores`` and ``detection_classes`` FP32
    [rows, M], ``detection_classes_as_text`` BYTES [rows, M], ``num_detections`` FP32 [rows].
    """

    labels: Mapping[str, Sequence[str]] = {}

    def __init__(
        self,
        config: Postprocess,
        outputs: Outputs,
        names: Sequence[str],
        size: tuple[int, int] | None,
    ) -> None:
        self._config = config
        self._outputs = outputs
        self._texts = [name.encode() for name in names]
        self._size = size
        roles: dict[Role, TensorSpec] = {}
        for role, known in _KNOWN.items():
            spec = outputs.find(role, known)
            if spec is not None:
                roles[role] = spec
        missing: list[Role] = [role for role in ("boxes", "scores") if role not in roles]
        if missing:
            raise LoadFailed(
                f"postprocess: which output is '{missing[0]}' is not known; set"
                " postprocess.outputs: {boxes: ..., scores: ..., classes: ..., count: ...}"
            )
        self._names = {role: spec.name for role, spec in roles.items()}
        shape = roles["boxes"].shape
        given = shape[1] if shape is not None and len(shape) == 3 else -1
        own = min(given, _DEFAULT_MOST) if given > 0 else _DEFAULT_MOST
        self._most = most = config.max_detections or own
        self.needs = tuple(self._names.values())
        self.outputs = (
            TensorSpec("detection_boxes", "FP32", (-1, most, 4)),
            TensorSpec("detection_scores", "FP32", (-1, most)),
            TensorSpec("detection_classes", "FP32", (-1, most)),
            TensorSpec("detection_classes_as_text", "BYTES", (-1, most)),
            TensorSpec("num_detections", "FP32", (-1,)),
        )

    def make(self, found: Tensors, frames: Sequence[Frame] | None) -> dict[str, Tensor]:
        """See ``Answer``."""
        by_role = {role: found[name] for role, name in self._names.items()}
        rows, most = len(by_role["boxes"]), self._most
        boxes = np.zeros((rows, most, 4), np.float32)
        scores, classes = np.zeros((2, rows, most), np.float32)
        texts = np.full((rows, most), b"", np.object_)
        counts = np.zeros(rows, np.float32)
        for row in range(rows):
            one = self._row({role: array[row] for role, array in by_role.items()})
            count = len(one.scores)
            at = (row, slice(count))
            corners = one.boxes
            if frames is not None:
                corners = frames[row].back(corners)
            boxes[at], scores[at], classes[at] = corners, one.scores, one.classes
            texts[at] = label_texts(one.classes, self._texts, self._config.label_offset)
            counts[row] = count
        made = (boxes, scores, classes, texts, counts)
        return {spec.name: array for spec, array in zip(self.outputs, made, strict=True)}

    def _row(self, found: Mapping[Role, Tensor]) -> _Found:
        config, names = self._config, self._names
        boxes = self._outputs.real(names["boxes"], found["boxes"]).reshape(-1, 4)
        scores = activate(self._outputs.real(names["scores"], found["scores"]), config.activation)
        if "count" in found:
            count = int(np.clip(np.nan_to_num(found["count"].reshape(-1)[:1]), 0, len(boxes))[0])
            boxes, scores = boxes[:count], scores[:count]
        least = -np.inf if config.threshold is None else config.threshold  # NaN is less than that
        if scores.ndim == 2:  # a score for each class: each is a candidate of its own
            anchors, classes = np.nonzero(scores >= least)
            boxes, scores = boxes[anchors], scores[anchors, classes]
        else:
            given = found.get("classes")
            classes = np.zeros(len(boxes), np.intp) if given is None else given[: len(boxes)]
            kept = scores >= least
            boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
        order = np.argsort(-scores, kind="stable")[:_MAX_CANDIDATES]
        boxes, scores, classes = (
            to_yxyx(boxes[order], config.box_format),
            scores[order],
            classes[order],
        )
        if config.box_units == "pixels" and self._size is not None:
            boxes = boxes / np.array(self._size * 2, np.float32)
        if config.iou_threshold is None:
            best = np.arange(min(len(scores), self._most))
        else:
            among = None if config.class_agnostic else classes
            best = surest(boxes, scores, among, config.iou_threshold, self._most)
        return _Found(boxes[best], scores[best], classes[best].astype(np.float32))
