"""The trainer, from top to bottom: probe, then one stage after the other, and back to the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.backbones import heads
from crossfade.training.backbones.backbone import Backbone
from crossfade.training.backbones.feature_cache import FeatureCache
from crossfade.training.core import checkpoint, seeds
from crossfade.training.core.command_line import CHECKPOINTS
from crossfade.training.core.devices import Place
from crossfade.training.core.optimise import Updates, groups
from crossfade.training.core.order import EpochBatches
from crossfade.training.core.run_log import RunLog
from crossfade.training.image_classifier.data import DataSet
from crossfade.training.image_classifier.trainer import of_test
from crossfade.training.losses.classification import focal
from crossfade.training.warm_start.config import WarmStartConfig

_EVALUATION_BATCH: Final = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a run came to.

    Attributes:
        classifier: with the weights of the stage and epoch that did best on validation.
        metrics: by name.
    """

    classifier: heads.WarmClassifier
    metrics: Mapping[str, float]


@dataclasses.dataclass(slots=True)
class _Best:
    """The best so far: by accuracy, then by loss; ``stage`` 0 is the probe."""

    accuracy: float = -1.0
    loss: float = 0.0
    stage: int = 0
    weights: dict[str, Any] = dataclasses.field(default_factory=dict)

    def look(self, measured: Mapping[str, float], stage: int, module: nn.Module) -> None:
        if (measured["accuracy"], -measured["loss"]) > (self.accuracy, -self.loss):
            self.accuracy, self.loss, self.stage = measured["accuracy"], measured["loss"], stage
            self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}


def train(
    config: WarmStartConfig,
    data: DataSet,
    backbone: Backbone,
    cache: FeatureCache,
    run: Path,
    *,
    place: Place,
    log: RunLog | None,
) -> Trained:
    """Trains, from the newest checkpoint of the run where there is one.

    Args:
        config: what to do.
        data: all splits.
        backbone: frozen, as it was cut out of the export.
        cache: of its pooled features.
        run: the run's folder.
        place: this process's, which must be alone.
        log: where the run says how it goes.

    Raises:
        NotFinite: a loss or gradient is NaN or infinite.
        ResourceExhausted: the disk is full.
        FailedPrecondition: features are not finite, the checkpoints are damaged, or there are
            several processes.
    """
    # --- the network
    if place.world > 1:
        raise FailedPrecondition("a warm start runs in one process")
    seeds.seed_everything(config.seed)
    backbone.to(place.device)
    rows = {  # [n, features] of the frozen backbone, each picture seen once
        split: cache.rows(pictures.pixels, lambda x: heads.pooled(backbone(x.to(place.device))))
        for split, pictures in data.splits.items()
    }
    head = heads.build(config.head, rows["training"].shape[1], len(data.labels)).to(place.device)
    classifier = heads.WarmClassifier(backbone, head).to(place.device)
    classes = {split: pictures.classes for split, pictures in data.splits.items()}
    best, done, epoch, steps = _Best(), 0, 0, 0
    saved = checkpoint.latest(run / CHECKPOINTS)
    if saved is not None:
        state = saved[1]
        classifier.load_state_dict(state["weights"])
        best = _Best(**state["best"])
        done, epoch, steps = state["stage"], state["epoch"], saved[0]
        seeds.restore(state["random"])

    # --- stage 0 is the head on cached features, stage n the last n stages of the backbone, too
    stages = min(config.stages, len(backbone.stages))
    for stage in range(done, stages + 1):
        backbone.unfreeze(stage)
        module: nn.Module = classifier if stage else head
        inputs = {s: p.pixels for s, p in data.splits.items()} if stage else rows
        epochs = config.stage_epochs if stage else config.probe_epochs
        batches = EpochBatches(
            len(classes["training"]), config.batch_size, seeds.derived(config.seed, stage)
        )
        updates = _updates(
            config, backbone, head, stage=stage, total_steps=len(batches) * epochs, place=place
        )
        if saved is not None and stage == done and epoch:
            updates.load_state_dict(saved[1]["updates"])
        for number in range(epoch, epochs):
            batches.epoch = number
            module.train()
            for chosen in batches:
                x, y = inputs["training"][chosen], classes["training"][chosen]
                loss = updates.take(
                    lambda x=x, y=y, module=module: focal(  # type: ignore[misc]
                        module(x.to(place.device)),
                        y.to(place.device),
                        gamma=0.0,
                        label_smoothing=config.label_smoothing,
                    )
                )
                steps += 1
                if log is not None:
                    log.metrics(steps, {"training/loss": loss})
            measured = evaluate(module, inputs["validation"], classes["validation"], place)
            updates.look(measured["loss"])
            best.look(measured, stage, classifier)
            if log is not None:
                shown = {f"validation/{name}": value for name, value in measured.items()}
                log.metrics(steps, {**shown, "stage": stage})
                log.progress(number + 1, epochs, f"stage {stage}, {_shown(measured)}")
            if updates.between:
                _save(run, steps, classifier, best, updates, stage=stage, epoch=number + 1)
        epoch = 0
        # --- a stage that did not do better is taken back, and no more are opened
        classifier.load_state_dict(best.weights)
        if best.stage != stage:
            break
    backbone.unfreeze(0)

    # --- the best, on pictures that nothing was chosen by
    test = data.splits["test"]
    measured = evaluate(classifier, test.pixels, test.classes, place)
    metrics = {
        "validation/accuracy": best.accuracy,
        "best_stage": float(best.stage),
        "steps": float(steps),
        **of_test(measured, len(test.classes)),
    }
    return Trained(classifier, metrics)


@torch.no_grad()
def evaluate(module: nn.Module, inputs: Tensor, classes: Tensor, place: Place) -> dict[str, float]:
    """Cross-entropy and accuracy of pictures or features, as when served."""
    was_training = module.training
    module.eval()
    loss = right = 0.0
    size = _EVALUATION_BATCH
    for x, y in zip(torch.split(inputs, size), torch.split(classes, size), strict=True):
        logits, wanted = module(x.to(place.device)).float(), y.to(place.device)
        loss += float(nn.functional.cross_entropy(logits, wanted, reduction="sum"))
        right += float((logits.argmax(1) == wanted).sum())
    module.train(was_training)
    return {"loss": loss / len(classes), "accuracy": right / len(classes)}


def _updates(
    config: WarmStartConfig,
    backbone: Backbone,
    head: nn.Module,
    *,
    stage: int,
    total_steps: int,
    place: Place,
) -> Updates:
    how = config.optimisation
    of_head = groups(head, how.learning_rate, how.weight_decay)
    of_stages = backbone.rates(how.learning_rate * config.stage_rate, config.stage_decay)
    decayed = [{"weight_decay": how.weight_decay, **group} for group in of_stages]
    if stage:
        schedule = how.schedule.warmed(config.stage_warmup_steps, total_steps)
        how = how.model_copy(update={"schedule": schedule})
    module = head if stage == 0 else backbone
    return Updates(module, how, total_steps, place.device, parameter_groups=[*of_head, *decayed])


def _save(
    run: Path,
    steps: int,
    classifier: nn.Module,
    best: _Best,
    updates: Updates,
    *,
    stage: int,
    epoch: int,
) -> None:
    state = {
        "weights": classifier.state_dict(),
        "best": dataclasses.asdict(best),
        "updates": updates.state_dict(),
        "stage": stage,
        "epoch": epoch,
        "random": seeds.capture(),
    }
    checkpoint.write(run / CHECKPOINTS, steps, state)


def _shown(measured: Mapping[str, float]) -> str:
    return f"validation {measured['accuracy']:.1%}, loss {measured['loss']:.4f}"
