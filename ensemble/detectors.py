"""``weighted`` over detectors: their boxes become one list, label by label.

Members answer as the task ``detection`` does: ``detection_boxes`` [rows, n, 4],
``detection_scores`` and ``detection_classes_as_text`` [rows, n], ``num_detections`` [rows].
Labels are compared as texts, as each detector numbers its classes in its own way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from crossfade.ensemble.boxes import Detections, fuse, suppress
from crossfade.ensemble.fitting import joined_inputs, present, rows_at_most
from crossfade.ensemble.labels import canonical
from crossfade.ensemble.members import Known, Look
from crossfade.ensemble.plan import Answer, Face, Plan, Result
from crossfade.ensemble.team import Team
from crossfade.ensemble.turnout import Turnout
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Internal
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    Signature,
    Tensors,
    TensorSpec,
)

BOXES: Final = "detection_boxes"
SCORES: Final = "detection_scores"
TEXTS: Final = "detection_classes_as_text"
COUNT: Final = "num_detections"
_NEEDED: Final = (BOXES, SCORES, TEXTS, COUNT)


@dataclasses.dataclass(frozen=True, slots=True)
class Detectors:
    """The kind.

    Attributes:
        weights: one for each member.
        fuses: boxes that overlap become one; else the surest stays.
        iou_threshold: from which overlap on; ``None`` is the rule's own.
        most: boxes that are given at most.
    """

    weights: tuple[float, ...]
    turnout: Turnout
    fuses: bool = True
    iou_threshold: float | None = None
    most: int = 100

    def __call__(self, members: Sequence[tuple[str, Look]]) -> Plan:
        """See ``Kind``."""
        known = present(members)
        for member in known:
            names = {spec.name for spec in member.signature.outputs}
            missing = [name for name in _NEEDED if name not in names]
            if missing:
                raise FailedPrecondition(
                    f"member '{member.name}' has no output '{missing[0]}', but {sorted(names)};"
                    " give its model task: detection with postprocess, or map its outputs"
                )
        batched = all(member.signature.batched for member in known)
        lead = -1 if batched else 1
        outputs = (
            TensorSpec(BOXES, "FP32", (lead, self.most, 4)),
            TensorSpec(SCORES, "FP32", (lead, self.most)),
            TensorSpec(TEXTS, "BYTES", (lead, self.most)),
            TensorSpec(COUNT, "FP32", (lead,)),
        )
        rows = rows_at_most(known) if batched else 0
        return _Plan(Face(Signature(joined_inputs(known), outputs, batched), {}, rows), known, self)

    def row(self, found: Sequence[Detections], weights: Sequence[float]) -> Detections:
        """One picture's boxes of all detectors as one list, the best first."""
        rule: Callable[..., Detections] = fuse if self.fuses else suppress
        if self.iou_threshold is None:
            return rule(found, weights)
        return rule(found, weights, iou_threshold=self.iou_threshold)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    face: Face
    members: Sequence[Known]
    kind: Detectors

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """See ``Plan``."""
        asked = [dataclasses.replace(request, outputs=_NEEDED) for request in requests]
        turns = self.kind.turnout.ask(asked, team, self.members)
        return [turn if isinstance(turn, CrossfadeError) else self._joined(*turn) for turn in turns]

    def _joined(self, given: Sequence[InferResponse | None], answer: Answer) -> Result:
        pairs = [
            (one.outputs, weight)
            for one, weight in zip(given, self.kind.weights, strict=True)
            if one is not None
        ]
        weights = [weight for _, weight in pairs]
        if not any(weights):
            return Internal("only members without a weight have answered")
        most = self.kind.most
        rows = len(pairs[0][0][BOXES])
        boxes = np.zeros((rows, most, 4), np.float32)
        scores = np.zeros((rows, most), np.float32)
        texts = np.full((rows, most), b"", np.object_)
        counts = np.zeros(rows, np.float32)
        try:
            for row in range(rows):
                places: dict[str, int] = {}
                found = [_detections(outputs, row, places) for outputs, _ in pairs]
                one = self.kind.row(found, weights)
                count = min(len(one.scores), most)
                names = [label.encode() for label in places]
                boxes[row, :count] = one.boxes[:count]
                scores[row, :count] = one.scores[:count]
                texts[row, :count] = [names[place] for place in one.classes[:count].tolist()]
                counts[row] = count
        except CrossfadeError as error:
            return error
        outputs = {BOXES: boxes, SCORES: scores, TEXTS: texts, COUNT: counts}
        return dataclasses.replace(answer, outputs=outputs)


def _detections(outputs: Tensors, row: int, places: dict[str, int]) -> Detections:
    """One detector's boxes in one picture; ``places`` numbers the labels as they come."""
    boxes = outputs[BOXES][row]
    count = int(np.clip(np.nan_to_num(outputs[COUNT].reshape(-1)[row]), 0, len(boxes)))
    classes = [
        places.setdefault(canonical(bytes(text).decode("utf-8", "replace")), len(places))
        for text in outputs[TEXTS][row][:count].tolist()
    ]
    return Detections(
        np.asarray(boxes[:count], np.float32),
        np.asarray(outputs[SCORES][row][:count], np.float32),
        np.array(classes, np.intp),
    )
