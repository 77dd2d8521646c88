"""What a detector becomes in a repository: ONNX, labels, a picture to warm up with, a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from crossfade.runtimes.extras import require
from crossfade.serving.repository.lineage import Card
from crossfade.training.arr_coc.backbone import Detector
from crossfade.training.arr_coc.entry import finish, warm_name
from crossfade.training.arr_coc.geometry import (
    GRID_HEIGHT,
    GRID_WIDTH,
    INPUT_HEIGHT,
    INPUT_WIDTH,
    OFFSET_SCALE,
)
from crossfade.training.arr_coc.metrics import average_precision
from crossfade.training.arr_coc.pictures import Pictures
from crossfade.training.arr_coc.run import Run
from crossfade.training.arr_coc.train_backbone import class_scores
from crossfade.training.core import onnx_file
from crossfade.training.detection.records import DetectionSet
from crossfade.training.lineage import facts

TASK: Final = "detector"
OUTPUTS: Final = ("scores", "objectness", "centres")
_MODEL: Final = "model.onnx"
_LABELS: Final = "labels.txt"
_REAL_ROWS: Final = 8


class ServedDetector(nn.Module):
    """The detector with bytes in, and fractions out."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        x = (torch.arange(GRID_WIDTH) + 0.5) / GRID_WIDTH
        y = (torch.arange(GRID_HEIGHT) + 0.5) / GRID_HEIGHT
        grid = torch.stack([x.expand(GRID_HEIGHT, -1), y[:, None].expand(-1, GRID_WIDTH)])
        self.register_buffer("grid", grid)  # [2, GH, GW]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detects.

        Args:
            image: UINT8 ``[N, 3, INPUT_HEIGHT, INPUT_WIDTH]``.

        Returns:
            ``scores`` ``[N, classes, GH, GW]`` and ``objectness`` ``[N, GH, GW]`` in (0, 1);
            ``centres`` ``[N, classes, 2, GH, GW]``: x, y of the box's, in fractions of the
            picture.
        """
        seen = self.detector(image.float())
        offsets = seen.offsets.unflatten(1, (-1, 2)) / OFFSET_SCALE
        scores, objectness = seen.class_logits.sigmoid(), seen.objectness.sigmoid()
        return scores, objectness.squeeze(1), self.grid + offsets


def write(folder: Path, run: Run, detector: Detector) -> Card:
    """Fills a version's folder.

    Raises:
        FailedPrecondition: the model cannot be written, or the file answers otherwise.
    """
    module = ServedDetector(detector).eval()
    test = Pictures.load(run.data.of("test"), run.data.labels)
    pictures = np.ascontiguousarray(test.pixels[:_REAL_ROWS].transpose(0, 3, 1, 2))
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, INPUT_HEIGHT, INPUT_WIDTH), np.uint8)
    file = folder / _MODEL
    onnx_file.write(module, {"image": torch.from_numpy(noise)}, OUTPUTS, file)
    ort = require("onnxruntime", "training", "checking ONNX files")
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def ours(batch: Any) -> Any:
        return _joined(part.numpy() for part in module(torch.from_numpy(batch)))

    def theirs(batch: Any) -> Any:
        return _joined(session.run(OUTPUTS, {"image": batch}))

    proof = facts.parity(ours, theirs, [pictures, noise, noise[:1]])
    (folder / _LABELS).write_text("".join(f"{label}\n" for label in run.data.labels), "utf-8")
    config = run.config.model_dump(mode="json", include={"seed", "backbone"})
    metrics = _metrics(run, detector, test)
    return finish(folder, run, task=TASK, config=config, metrics=metrics, parity=proof)


def _metrics(run: Run, detector: Detector, test: Pictures) -> dict[str, float]:
    """Average precision of patches by class, on pictures that nothing was chosen by."""
    scores, truth = class_scores(detector, test), test.relevance()[:, :-1, 0]
    found = {
        f"test/average_precision/{label}": average_precision(scores[:, k], truth[:, k])
        for k, label in enumerate(run.data.labels)
    }
    return {"test/average_precision": float(np.mean(list(found.values()))), **found}


def model_yaml(data: DetectionSet) -> dict[str, Any]:
    """Returns what ``model.yaml`` must say so that clients send picture files."""
    return {
        "platform": "onnx",
        "preprocess": {"input": "image", "name": "image_bytes"},
        "warmup": [{"count": 3, "inputs": {"image_bytes": [{"file": warm_name(data)}]}}],
    }


def _joined(parts: Any) -> Any:
    return np.concatenate([np.reshape(part, (len(part), -1)) for part in parts], axis=1)
