"""Trains the detector that later stages freeze."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from crossfade.training.arr_coc.augmentation import view
from crossfade.training.arr_coc.backbone import Detector
from crossfade.training.arr_coc.config import BackboneConfig
from crossfade.training.arr_coc.geometry import OFFSET_SCALE, centre_offsets, relevant
from crossfade.training.arr_coc.metrics import average_precision
from crossfade.training.arr_coc.pictures import Pictures, to_tensor
from crossfade.training.arr_coc.stage import Progress, Stage, Stateful
from crossfade.training.core import seeds
from crossfade.training.core.optimise import Updates
from crossfade.training.core.order import EpochBatches


def train(
    make: Callable[[], Detector],
    training: Pictures,
    validation: Pictures,
    config: BackboneConfig,
    *,
    seed: int,
    stage: Stage,
) -> Detector:
    """Trains, or goes on from the stage's last checkpoint.

    Args:
        make: makes the untrained detector; what of it is frozen stays as it is.
        training: what is learned from.
        validation: what the weights are chosen on.
        config: how.
        seed: of weights, views and order.
        stage: of the run.

    Returns:
        The averaged weights that were best on ``validation``.

    Raises:
        NotFinite: the loss is no longer a number.
    """
    torch.manual_seed(seeds.derived(seed, "backbone"))
    model: Detector = make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    best = copy.deepcopy(averaged)
    batches = EpochBatches(len(training.pixels), config.batch_size, seed)
    steps = config.epochs * len(batches)
    updates = Updates(model, config.optimisation, steps, torch.device("cpu"))
    progress = Progress()
    parts: dict[str, Stateful] = {
        "model": model,
        "averaged": averaged,
        "best": best,
        "updates": updates,
    }
    stage.resume(progress, parts)
    truth = validation.relevance()[:, :-1, 0]  # [n, n_classes, GH, GW]
    for epoch in range(progress.epoch + 1, config.epochs + 1):
        model.train()
        batches.epoch = epoch
        total = 0.0
        for number, rows in enumerate(batches, 1):
            views = _views(training, rows, seed, epoch)
            total += updates.take(functools.partial(_loss, model, *views))
            _average(averaged, model, config.averaging)
            stage.say(updates.step, steps, f"loss {total / number:.4f}")
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            scores = class_scores(averaged, validation)
            found = [average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1])]
            progress.epoch = epoch
            if (score := float(np.mean(found))) > progress.best:
                best.load_state_dict(averaged.state_dict())
                progress.best = score
            values = {"loss": total / len(batches), "validation/map": score}
            values |= {f"validation/ap_{k}": ap for k, ap in enumerate(found)}
            stage.record(updates.step, values, progress, parts)
    return best


def class_scores(model: Detector, pictures: Pictures) -> np.ndarray:
    """Returns FP32 ``[n, n_classes, GH, GW]`` class logits."""
    with torch.inference_mode():
        return torch.cat([model(b).class_logits for b in pictures.batches()]).numpy()


def _views(
    pictures: Pictures, rows: list[int], seed: int, epoch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a view of each row; returns pixels, class and "any" relevance, centre offsets."""
    pixels, relevance, offsets = [], [], []
    for row in rows:
        rng = np.random.default_rng(seeds.derived(seed, "backbone view", epoch, row))
        seen, boxes, kept = view(pictures.pixels[row], pictures.boxes[row], rng)
        boxes, classes = boxes[kept], pictures.classes[row][kept]
        pixels.append(seen)
        relevance.append(relevant(boxes, classes, pictures.n_classes, places=1)[:, 0])
        offsets.append(centre_offsets(boxes, classes, pictures.n_classes))
    target = torch.from_numpy(np.stack(relevance)).float()
    return to_tensor(np.stack(pixels)), target, torch.from_numpy(np.stack(offsets))


def _loss(model: Detector, pixels: Tensor, relevance: Tensor, offsets: Tensor) -> Tensor:
    """Focal cross-entropy of what covers a patch, and Huber's loss of where its centre is."""
    seen = model(pixels)
    logits = torch.cat([seen.class_logits, seen.objectness], dim=1).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, relevance, reduction="none")
    focus = (logits.sigmoid() - relevance).abs()  # gamma 1
    per_channel = (focus * entropy).mean(dim=(0, 2, 3))
    # A rare class would drown among the others: each counts by its share, damped.
    rarity = relevance.mean(dim=(0, 2, 3)).clamp(min=0.004) ** -0.5
    touched = offsets.isfinite()
    gap = (
        seen.offsets.float() - OFFSET_SCALE * offsets.nan_to_num().flatten(1, 2)
    ) * touched.flatten(1, 2)
    where = functional.smooth_l1_loss(gap, torch.zeros_like(gap), reduction="sum", beta=0.1)
    return (rarity * per_channel).sum() + 0.5 * where / touched.sum().clamp(min=1)


@torch.no_grad()
def _average(averaged: Detector, model: Detector, keep: float) -> None:
    for old, new in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)
