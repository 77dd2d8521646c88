"""AutoML Image's stand-in on this machine: a classifier of pictures, the best of a few networks."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.training.baseline.jobs import Progress, Report
from crossfade.training.baseline.metrics import Evaluation
from crossfade.training.core.devices import Place, place
from crossfade.training.image_classifier import export, trainer
from crossfade.training.image_classifier.config import ImageClassifierConfig
from crossfade.training.image_classifier.data import DataSet, load
from crossfade.training.intervals import mean, wilson

# From small to large: the next is tried while there is time for it.
_WIDTHS: Final[Sequence[tuple[int, ...]]] = ((16, 32, 64), (24, 48, 96), (32, 64, 128))
_HOUR_S: Final = 3.6


@dataclasses.dataclass(frozen=True, slots=True)
class LocalImageModel:
    """A trained baseline for pictures."""

    name: str
    trained: trainer.Trained
    data: DataSet
    config: ImageClassifierConfig
    place: Place
    tried: Mapping[str, float]

    @property
    def display_name(self) -> str:
        """The name that it was given."""
        return self.name

    def evaluate(self) -> Evaluation:
        """Accuracy and log loss of the test split, which no network was chosen by."""
        import numpy as np
        import torch

        pictures = self.data.splits["test"]
        classifier = self.trained.classifier.eval()
        with torch.no_grad():
            scores = torch.softmax(classifier(pictures.pixels.to(self.place.device)), 1).cpu()
        wanted = pictures.classes.numpy()
        right = scores.argmax(1).numpy() == wanted
        chosen = scores.numpy()[np.arange(len(wanted)), wanted]
        metrics = {
            "accuracy": wilson(int(right.sum()), len(wanted)),
            "majorityAccuracy": wilson(int(np.bincount(wanted).max()), len(wanted)),
            "logLoss": mean(-np.log(np.maximum(chosen, 1e-15))),
        }
        return Evaluation("classification", len(wanted), metrics)

    def export(self, folder: str | Path) -> Mapping[str, Any]:
        """See ``TrainedModel``: ONNX, labels and a card."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        tuned = {"network.widths": "tuned"} if len(self.tried) > 1 else {}
        export.write(
            target, self.trained, self.data, self.config, provenance=tuned, place=self.place
        )
        return self.model_yaml()

    def model_yaml(self) -> dict[str, Any]:
        """What ``model.yaml`` has to say."""
        return export.model_yaml(self.config)


class LocalImageTrainingJob:
    """Stands in for ``AutoMLImageTrainingJob``, with its argument names.

    Args:
        display_name: what to call it.
        prediction_type: ``classification``; others are not made here.
        multi_label: has to be false.
        size: pixels that pictures are resized to, height and width.
        color: ``rgb`` or ``gray``.
        seed: of all that is drawn.
        epochs: of each network.
        report: is told how far it is.
    """

    def __init__(
        self,
        display_name: str,
        prediction_type: str = "classification",
        multi_label: bool = False,
        *,
        size: int = 64,
        color: str = "rgb",
        seed: int = 0,
        epochs: int = 15,
        report: Report | None = None,
    ) -> None:
        if prediction_type != "classification" or multi_label:
            raise InvalidArgument(
                f"'{escape(prediction_type)}'{' with several labels' if multi_label else ''} is not"
                " made here; there is classification with one label a picture"
            )
        self._name = display_name
        self._size = size
        self._color = color
        self._seed = seed
        self._epochs = epochs
        self._report: Report = report or (lambda _: None)

    def run(
        self,
        dataset: str | Path,
        *,
        training_fraction_split: float = 0.8,
        validation_fraction_split: float = 0.1,
        test_fraction_split: float = 0.1,
        budget_milli_node_hours: int = 1000,
        model_display_name: str | None = None,
    ) -> LocalImageModel:
        """Trains networks of growing size while there is time, and keeps the best on validation.

        Args:
            dataset: a folder with a folder for each label, or an import file of Vertex AI (CSV).
            training_fraction_split: of the pictures of each label, where the data do not say.
            validation_fraction_split: for the choice.
            test_fraction_split: for ``evaluate``.
            budget_milli_node_hours: see ``TrainingJob.run``; the first network is always trained.
            model_display_name: what to call the model.

        Raises:
            NotFound, InvalidArgument: the data are not there, or wrong; the message says where.
        """
        fractions = (training_fraction_split, validation_fraction_split, test_fraction_split)
        if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise InvalidArgument("the fractions for training, validation and test add up to 1")
        started = time.monotonic()
        budget_s = budget_milli_node_hours * _HOUR_S
        best: tuple[float, ImageClassifierConfig, trainer.Trained] | None = None
        tried: dict[str, float] = {}
        with place("auto") as here:
            data = load(Path(dataset), self._config(_WIDTHS[0], fractions).data, self._seed)
            last_s = 0.0
            for widths in _WIDTHS:
                used_s = time.monotonic() - started
                if best is not None and used_s + 2 * last_s > budget_s:
                    break
                name = "-".join(map(str, widths))
                shown = best[0] if best else None
                self._report(Progress(f"network {name}", min(1.0, used_s / budget_s), shown))
                config = self._config(widths, fractions)
                with tempfile.TemporaryDirectory(prefix="crossfade-") as scratch:
                    trained = trainer.train(config, data, Path(scratch), here, None)
                last_s = time.monotonic() - started - used_s
                accuracy = trained.metrics["validation/accuracy"]
                tried[name] = accuracy
                if best is None or accuracy > best[0]:
                    best = (accuracy, config, trained)
            assert best is not None
            self._report(Progress("done", 1.0, best[0]))
            name = model_display_name or self._name
            return LocalImageModel(name, best[2], data, best[1], here, tried)

    def _config(
        self, widths: tuple[int, ...], fractions: tuple[float, float, float]
    ) -> ImageClassifierConfig:
        return ImageClassifierConfig.model_validate(
            {
                "data": {
                    "size": self._size,
                    "color": self._color,
                    "shift": max(1, self._size // 16),
                    "validation_share": fractions[1],
                    "test_share": fractions[2],
                },
                "network": {"widths": widths},
                "epochs": self._epochs,
                "seed": self._seed,
            }
        )
