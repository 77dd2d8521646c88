"""The pair of the ensemble benchmark: one frozen MobileNetV2 with two heads, as two models.

The two files are written apart, as two trainings leave them: nothing in them says what they share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from crossfade.benchmarks.models import CLASS_COUNT, SEED, cnn_inputs, make_cnn
from crossfade.benchmarks.onnx_session import open_session

MEMBERS: Final = ("automl", "custom")
WEIGHTS: Final = (0.3, 0.7)
INPUT, OUTPUT = "pixels", "scores"
PLAIN: Final = """\
ensemble:
  kind: weighted
  scores: probabilities
  fuse: {fuse}
  members:
    - {{model: automl, weight: 0.3}}
    - {{model: custom, weight: 0.7}}
"""
SHADOW: Final = """\
ensemble:
  kind: shadow
  primary: {model: automl}
  mirrors: [{model: custom}]
"""


def make_member(number: int) -> bytes:
    """MobileNetV2 with a softmax, and a head of its own."""
    model = make_cnn()
    rng = np.random.default_rng(SEED + number)
    for weight in model.graph.initializer:
        if weight.name.startswith("classifier"):
            values = numpy_helper.to_array(weight)
            drawn = rng.standard_normal(values.shape).astype(np.float32) * values.std()
            weight.CopyFrom(numpy_helper.from_array(drawn, weight.name))
    tail = model.graph.node[-1]
    tail.output[0] = "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], [OUTPUT], name="softmax"))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def write_repository(folder: Path) -> None:
    """Both members, and the ensembles ``fused``, ``unfused`` and ``shadow`` of them."""
    labels = "".join(f"class {number}\n" for number in range(CLASS_COUNT))
    for number, name in enumerate(MEMBERS):
        (folder / name / "1").mkdir(parents=True, exist_ok=True)
        (folder / name / "1" / "model.onnx").write_bytes(make_member(number))
        (folder / name / "labels.txt").write_text(labels)
    for name, text in {
        "fused": PLAIN.format(fuse="true"),
        "unfused": PLAIN.format(fuse="false"),
        "shadow": SHADOW,
    }.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model.yaml").write_text(text)


def model_file(folder: Path, member: str) -> Path:
    """The file of a member in a repository."""
    return folder / member / "1" / "model.onnx"


def picture() -> npt.NDArray[np.float32]:
    """One input, [1, 3, 224, 224]."""
    return cnn_inputs(np.random.default_rng(SEED))[INPUT].astype(np.float32)


def expected(folder: Path) -> npt.NDArray[np.float32]:
    """What the ensemble answers to ``picture``, by bare sessions."""
    scores = [
        open_session(str(model_file(folder, name))).run([OUTPUT], {INPUT: picture()})[0]
        for name in MEMBERS
    ]
    return np.asarray(WEIGHTS[0] * scores[0] + WEIGHTS[1] * scores[1], np.float32)
