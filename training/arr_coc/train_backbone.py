"""Trains the detector that later stages freeze."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from crossfade.training.arr_coc.augmentation import view
from crossfade.training.arr_coc.backbone import Detection, DetectorBackbone
from crossfade.training.arr_coc.config import BackboneConfig
from crossfade.training.arr_coc.geometry import centre_offsets, relevant
from crossfade.training.arr_coc.metrics import average_precision
from crossfade.training.arr_coc.pictures import Pictures, to_tensor


def train(
    training: Pictures,
    validation: Pictures,
    config: BackboneConfig,
    seed: int,
    report: Callable[[dict[str, float]], None],
) -> DetectorBackbone:
    """Trains from scratch; returns the averaged weights that were best on ``validation``.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = DetectorBackbone(training.n_classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    best, best_score = copy.deepcopy(averaged), -1.0
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    n_batches = math.ceil(len(training.pixels) / config.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.epochs * n_batches, pct_start=0.15
    )
    truth = validation.relevance()[:, :-1, 0]  # [n, n_classes, GH, GW]
    for epoch in range(1, config.epochs + 1):
        model.train()
        total = 0.0
        for rows in np.array_split(rng.permutation(len(training.pixels)), n_batches):
            pixels, relevance, offsets = _batch(training, rows, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=config.mixed_precision):
                seen = model(pixels)
            loss = _loss(seen, relevance, offsets)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the backbone's loss is {loss.item()} in epoch {epoch}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            _average(averaged, model, config.averaging)
            total += loss.item()
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            scores = class_scores(averaged, validation)
            found = [average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1])]
            score = float(np.mean(found))
            report({"epoch": epoch, "loss": total / n_batches, "validation_map": score}
                   | {f"validation_ap_{k}": ap for k, ap in enumerate(found)})
            if score > best_score:
                best, best_score = copy.deepcopy(averaged), score
    return best


def class_scores(model: DetectorBackbone, pictures: Pictures) -> np.ndarray:
    """Returns FP32 ``[n, n_classes, GH, GW]`` class logits."""
    with torch.inference_mode():
        return torch.cat([model(b).class_logits for b in pictures.batches()]).numpy()


def _batch(
    pictures: Pictures, rows: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a view of each row; returns pixels, class and "any" relevance, centre offsets."""
    pixels, relevance, offsets = [], [], []
    for row in rows:
        seen, boxes, kept = view(pictures.pixels[row], pictures.boxes[row], rng)
        boxes, classes = boxes[kept], pictures.classes[row][kept]
        pixels.append(seen)
        relevance.append(relevant(boxes, classes, pictures.n_classes, places=1)[:, 0])
        offsets.append(centre_offsets(boxes, classes, pictures.n_classes))
    target = torch.from_numpy(np.stack(relevance)).float()
    return to_tensor(np.stack(pixels)), target, torch.from_numpy(np.stack(offsets))


def _loss(seen: Detection, relevance: Tensor, offsets: Tensor) -> Tensor:
    """Focal cross-entropy of what covers a patch, and Huber's loss of where its centre is."""
    logits = torch.cat([seen.class_logits, seen.objectness], dim=1).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, relevance, reduction="none")
    focus = (logits.sigmoid() - relevance).abs()  # gamma 1
    per_channel = (focus * entropy).mean(dim=(0, 2, 3))
    # A rare class would drown among the others: each counts by its share, damped.
    rarity = relevance.mean(dim=(0, 2, 3)).clamp(min=0.004) ** -0.5
    touched = offsets.isfinite()
    gap = (seen.offsets.float() - 4 * offsets.nan_to_num().flatten(1, 2)) * touched.flatten(1, 2)
    where = functional.smooth_l1_loss(gap, torch.zeros_like(gap), reduction="sum", beta=0.1)
    return (rarity * per_channel).sum() + 0.5 * where / touched.sum().clamp(min=1)


@torch.no_grad()
def _average(averaged: DetectorBackbone, model: DetectorBackbone, keep: float) -> None:
    for old, new in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)
