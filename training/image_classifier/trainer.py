"""The trainer, from top to bottom; torchrun and Ray Train run it as it is, in each process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.core import checkpoint, seeds
from crossfade.training.core.command_line import CHECKPOINTS
from crossfade.training.core.devices import Place
from crossfade.training.core.optimise import Updates
from crossfade.training.core.order import EpochBatches
from crossfade.training.core.run_log import RunLog
from crossfade.training.image_classifier.config import Data, ImageClassifierConfig
from crossfade.training.image_classifier.data import DataSet, Pictures
from crossfade.training.image_classifier.network import Classifier, build
from crossfade.training.intervals import wilson
from crossfade.training.losses.classification import focal

_EVALUATION_BATCH: Final = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a run came to.

    Attributes:
        classifier: with the weights of the epoch that did best on the validation split.
        metrics: by name.
    """

    classifier: Classifier
    metrics: Mapping[str, float]


def train(
    config: ImageClassifierConfig, data: DataSet, run: Path, place: Place, log: RunLog | None
) -> Trained:
    """Trains, from the newest checkpoint of the run where there is one.

    Args:
        config: what to do.
        data: all splits.
        run: the run's folder.
        place: this process's; the first one writes.
        log: ``None`` in all but the first.

    Raises:
        NotFinite: a loss or gradient is NaN or infinite.
        ResourceExhausted: the disk is full.
        FailedPrecondition: the checkpoints are damaged, or of another number of processes.
    """
    # --- the network and how it is updated
    seeds.seed_everything(config.seed)
    channels = data.splits["training"].pixels.shape[1]
    classifier = build(config.network, channels, len(data.labels)).to(place.device)
    module = place.wrap(classifier)
    pictures = data.splits["training"]
    batches = EpochBatches(
        *(len(pictures.classes), config.batch_size, config.seed),
        rank=place.rank,
        world=place.world,
    )
    total_batches = config.epochs * len(batches)
    accumulate = config.optimisation.accumulate
    updates = Updates(module, config.optimisation, total_batches // accumulate, place.device)
    seeds.seed_everything(seeds.derived(config.seed, "rank", place.rank))  # dropout
    best = _Best()

    # --- where an earlier process got to
    progress = _Progress(classifier, updates, batches, best)
    progress.restore(run, place)

    # --- epochs
    for epoch in range(batches.epoch, config.epochs):
        batches.epoch = epoch
        module.train()
        for rows in batches:
            images = pictures.pixels[rows]  # uint8 [batch, channels, size, size]
            augmented = _augment(images, config, epoch, batches.position, place.rank)
            classes = pictures.classes[rows].to(place.device)
            loss = updates.take(
                lambda images=augmented, classes=classes: focal(  # type: ignore[misc]
                    module(images.to(place.device)),
                    classes,
                    gamma=config.focal_gamma,
                    label_smoothing=config.label_smoothing,
                )
            )
            batches.position += 1
            if not updates.between:
                continue
            if log is not None:
                log.metrics(updates.step, {"training/loss": loss})
                done = epoch * len(batches) + batches.position
                log.progress(done, total_batches, f"epoch {epoch + 1}, loss {loss:.4f}")
            if updates.step % config.checkpoint_every_steps == 0:
                progress.save(run, place)
        place.share_buffers(classifier)
        measured = evaluate(classifier, data.splits["validation"], place)
        updates.look(measured["loss"])
        best.look(measured, epoch, classifier)
        if log is not None:
            shown = {f"validation/{name}": value for name, value in measured.items()}
            rate = config.optimisation.learning_rate * updates.factor
            log.metrics(updates.step, {**shown, "learning_rate": rate})
        batches.epoch, batches.position = epoch + 1, 0
        if updates.between:
            progress.save(run, place)

    # --- the best epoch, on pictures that nothing was chosen by
    classifier.load_state_dict(best.weights)
    metrics = {"validation/accuracy": best.accuracy, "best_epoch": float(best.epoch + 1)}
    measured = evaluate(classifier, data.splits["test"], place)
    metrics |= of_test(measured, len(data.splits["test"].classes))
    return Trained(classifier, metrics)


def of_test(measured: Mapping[str, float], pictures: int) -> dict[str, float]:
    """What ``evaluate`` found on so many test pictures, for a card: with accuracy's 95 % interval.

    The interval is Wilson's.
    """
    share = wilson(round(measured["accuracy"] * pictures), pictures)
    ends = {"test/accuracy/low": share.low, "test/accuracy/high": share.high}
    return {f"test/{name}": value for name, value in measured.items()} | ends


@torch.no_grad()
def evaluate(classifier: nn.Module, pictures: Pictures, place: Place) -> dict[str, float]:
    """Cross-entropy and accuracy, over all processes; BatchNorm and dropout as when served."""
    was_training = classifier.training
    classifier.eval()
    right = loss = 0.0
    rows = torch.arange(place.rank, len(pictures.classes), place.world)
    for some in torch.split(rows, _EVALUATION_BATCH):
        classes = pictures.classes[some].to(place.device)
        logits = classifier(pictures.pixels[some].to(place.device)).float()
        loss += float(nn.functional.cross_entropy(logits, classes, reduction="sum"))
        right += float((logits.argmax(1) == classes).sum())
    classifier.train(was_training)
    right, loss = place.total(right, loss)
    return {"loss": loss / len(pictures.classes), "accuracy": right / len(pictures.classes)}


@dataclasses.dataclass(slots=True)
class _Best:
    """The best epoch so far: by accuracy, then by loss."""

    accuracy: float = -1.0
    loss: float = 0.0
    epoch: int = -1
    weights: dict[str, Any] = dataclasses.field(default_factory=dict)

    def look(self, measured: Mapping[str, float], epoch: int, classifier: nn.Module) -> None:
        if (measured["accuracy"], -measured["loss"]) > (self.accuracy, -self.loss):
            self.accuracy, self.loss, self.epoch = measured["accuracy"], measured["loss"], epoch
            self.weights = {k: v.detach().clone() for k, v in classifier.state_dict().items()}


@dataclasses.dataclass(frozen=True, slots=True)
class _Progress:
    """All that a run changes, to and from checkpoints."""

    classifier: Classifier
    updates: Updates
    batches: EpochBatches
    best: _Best

    def save(self, run: Path, place: Place) -> None:
        random = place.gather(seeds.capture())
        if place.first:
            state = {
                "weights": self.classifier.state_dict(),
                "updates": self.updates.state_dict(),
                "epoch": self.batches.epoch,
                "position": self.batches.position,
                "best": dataclasses.asdict(self.best),
                "random": random,
            }
            checkpoint.write(run / CHECKPOINTS, self.updates.step, state)

    def restore(self, run: Path, place: Place) -> None:
        found = checkpoint.latest(run / CHECKPOINTS)
        if found is None:
            return
        state = found[1]
        if len(state["random"]) != place.world:
            raise FailedPrecondition(
                f"the run was begun with {len(state['random'])} processes, not {place.world}"
            )
        self.classifier.load_state_dict(state["weights"])
        self.updates.load_state_dict(state["updates"])
        self.batches.epoch, self.batches.position = state["epoch"], state["position"]
        for name, value in state["best"].items():
            setattr(self.best, name, value)
        seeds.restore(state["random"][place.rank])


def _augment(
    images: torch.Tensor, config: ImageClassifierConfig, epoch: int, position: int, rank: int
) -> torch.Tensor:
    """Moves and mirrors each picture by numbers that depend on its place in the run alone."""
    how: Data = config.data
    if not how.shift and not how.flip:
        return images
    drawn = seeds.generator(config.seed, "augment", epoch, position, rank)
    count, _, height, width = images.shape
    padded = nn.functional.pad(images.float(), (how.shift,) * 4, mode="replicate").byte()
    moves = torch.randint(2 * how.shift + 1, (count, 2), generator=drawn).tolist()
    mirrored = (torch.rand(count, generator=drawn) < 0.5 * how.flip).tolist()
    cut = [
        padded[i, :, top : top + height, left : left + width].flip([2] if mirror else [])
        for i, ((top, left), mirror) in enumerate(zip(moves, mirrored, strict=True))
    ]
    return torch.stack(cut)
