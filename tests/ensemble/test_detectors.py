"""Several detectors' boxes as one list, met by the text of their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from crossfade.ensemble.detectors import BOXES, COUNT, SCORES, TEXTS, Detectors
from crossfade.ensemble.plan import LEFT_OUT
from crossfade.ensemble.turnout import Turnout
from crossfade.runtimes.core.errors import FailedPrecondition, Unavailable
from crossfade.runtimes.core.model import TensorSpec
from tests.ensemble.live import FakeLive, FakeModel, answered, echo, ensemble, failing, request

Box = tuple[Sequence[float], float, str]
OUTPUTS = [
    TensorSpec(BOXES, "FP32", (-1, 4, 4)),
    TensorSpec(SCORES, "FP32", (-1, 4)),
    TensorSpec(TEXTS, "BYTES", (-1, 4)),
    TensorSpec(COUNT, "FP32", (-1,)),
]


def detector(*found: Box) -> FakeModel:
    boxes, scores = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4), np.float32)
    texts = np.full((1, 4), b"", np.object_)
    for at, (box, score, text) in enumerate(found):
        boxes[0, at], scores[0, at], texts[0, at] = box, score, text.encode()
    answer = {BOXES: boxes, SCORES: scores, TEXTS: texts, COUNT: np.array([len(found)], np.float32)}
    return FakeModel(lambda _: answer, outputs=OUTPUTS)


CAT = ([0.1, 0.1, 0.5, 0.5], 0.8, "cat")
CAT_TOO = ([0.1, 0.1, 0.5, 0.52], 0.6, "cat")
DOG = ([0.1, 0.1, 0.5, 0.5], 0.9, "dog")


def listed(model: FakeModel | None, kind: Detectors, *others: FakeModel) -> list[tuple[str, float]]:
    live = FakeLive(**{f"m{n}": one for n, one in enumerate([model, *others]) if one})
    (found,) = ensemble(kind, live).infer([request([0, 0, 0])])
    outputs = answered(found).outputs
    count = int(outputs[COUNT][0])
    return [
        (text.decode(), round(float(score), 3))
        for text, score in zip(outputs[TEXTS][0][:count], outputs[SCORES][0][:count], strict=True)
    ]


def test_boxes_of_one_label_are_fused() -> None:
    kind = Detectors((1.0, 1.0), Turnout(2))
    found = listed(detector(CAT), kind, detector(DOG, CAT_TOO))
    assert found == [("cat", 0.7), ("dog", 0.45)]


def test_or_the_surest_stays() -> None:
    kind = Detectors((1.0, 1.0), Turnout(2), fuses=False)
    assert listed(detector(CAT), kind, detector(DOG, CAT_TOO)) == [("dog", 0.9), ("cat", 0.8)]
    kind = Detectors((1.0, 1.0), Turnout(2), fuses=False, iou_threshold=0.99, most=2)
    assert listed(detector(CAT), kind, detector(DOG, CAT_TOO)) == [("dog", 0.9), ("cat", 0.8)]


def test_one_that_fails_may_be_left_out() -> None:
    away = failing(Unavailable("away"))
    away.metadata = detector().metadata
    live = FakeLive(one=detector(CAT), two=away)
    (found,) = ensemble(Detectors((1.0, 1.0), Turnout(1)), live).infer([request([0, 0, 0])])
    assert answered(found).parameters == {LEFT_OUT: "two"}
    assert answered(found).outputs[SCORES][0, 0] == pytest.approx(0.8)
    assert answered(found).outputs[BOXES].shape == (1, 100, 4)


def test_a_model_that_is_no_detector() -> None:
    kind = Detectors((1.0, 1.0), Turnout(2))
    with pytest.raises(FailedPrecondition, match="'two' has no output 'detection_boxes'"):
        ensemble(kind, FakeLive(one=detector(CAT), two=echo()))
