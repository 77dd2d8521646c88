"""Trains the heads on features of the frozen detector, which are computed once."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from crossfade.training.arr_coc.augmentation import view
from crossfade.training.arr_coc.backbone import Detection, DetectorBackbone
from crossfade.training.arr_coc.config import HeadsConfig
from crossfade.training.arr_coc.distortion import originals, squared_errors
from crossfade.training.arr_coc.geometry import PATCHES, relevant
from crossfade.training.arr_coc.losses import information_loss, relevance_loss, tension_spread
from crossfade.training.arr_coc.metrics import average_precision
from crossfade.training.arr_coc.model import QueryHeads
from crossfade.training.arr_coc.patch_statistics import PatchStatistics
from crossfade.training.arr_coc.pictures import Pictures, to_tensor
from crossfade.training.arr_coc.queries import Language


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """What the heads see of ``n`` pictures, and what is true of them.

    Attributes:
        seen: of the detector.
        statistics: ``[n, STATISTICS, GH, GW]``.
        relevant: BOOL ``[n, kinds, places, N]``.
    """

    seen: Detection
    statistics: Tensor
    relevant: np.ndarray

    def rows(self, rows: Tensor) -> tuple[Detection, Tensor]:
        """Returns a batch in FP32."""
        seen = Detection(*(part[rows].float() for part in self.seen))
        return seen, self.statistics[rows]


@torch.inference_mode()
def look(backbone: DetectorBackbone, pictures: Pictures) -> Frozen:
    """Runs the frozen parts over pictures as they are."""
    statistics = PatchStatistics()
    seen = [(backbone(batch), statistics(batch)) for batch in pictures.batches()]
    truth = pictures.relevance()
    return Frozen(
        Detection(*(torch.cat(parts) for parts in zip(*(s for s, _ in seen), strict=True))),
        torch.cat([s for _, s in seen]),
        truth.reshape(*truth.shape[:3], PATCHES),
    )


@torch.inference_mode()
def look_at_views(
    backbone: DetectorBackbone, pictures: Pictures, views: int, rng: np.random.Generator
) -> Frozen:
    """Runs the frozen parts over ``views`` of each picture; FP16 features, to save memory."""
    statistics = PatchStatistics()
    details, numbers, truths = [], [], []
    for _ in range(views):
        for rows in np.array_split(np.arange(len(pictures.pixels)), len(pictures.pixels) // 16 + 1):
            pixels = []
            for row in rows:
                seen, boxes, kept = view(pictures.pixels[row], pictures.boxes[row], rng)
                kinds = pictures.classes[row][kept]
                truth = relevant(boxes[kept], kinds, pictures.n_classes)
                truths.append(truth.reshape(*truth.shape[:2], PATCHES))
                pixels.append(seen)
            batch = to_tensor(np.stack(pixels))
            details.append(Detection(*(part.half() for part in backbone(batch))))
            numbers.append(statistics(batch))
    joined = Detection(*(torch.cat(parts) for parts in zip(*details, strict=True)))
    return Frozen(joined, torch.cat(numbers), np.stack(truths))


def train(
    backbone: DetectorBackbone,
    training: Pictures,
    validation: Pictures,
    language: Language,
    config: HeadsConfig,
    seed: int,
    report: Callable[[dict[str, float]], None],
) -> QueryHeads:
    """Trains; returns the heads that were best on trained queries of ``validation``.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    views = look_at_views(backbone, training, config.views, rng)
    held = look(backbone, validation)
    heads = make_heads(language, config)
    fit_information(heads, training)
    queries = language.trained
    kinds = np.array([query.kind for query in queries])
    places = np.array([query.place for query in queries])
    phrases = [language.tokens(language.phrases(query)) for query in queries]
    trained = [p for n, p in heads.named_parameters() if not n.startswith("information.loss")]
    optimizer = torch.optim.AdamW(trained, config.learning_rate, weight_decay=config.weight_decay)
    n_batches = len(views.relevant) // config.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.epochs * n_batches, pct_start=0.1
    )
    best, best_score = copy.deepcopy(heads), -1.0
    for epoch in range(1, config.epochs + 1):
        heads.train()
        total = 0.0
        order = rng.permutation(len(views.relevant))
        for rows in np.array_split(order, n_batches):
            seen, statistics = views.rows(torch.from_numpy(rows))
            said = np.stack([[p[rng.integers(len(p))] for p in phrases] for _ in rows])
            truth = torch.from_numpy(views.relevant[rows][:, kinds, places]).float()
            scores = heads(seen, statistics, torch.from_numpy(said))
            loss = relevance_loss(scores.logits, truth)
            if scores.tensions is not None:
                loss = loss + 0.02 * tension_spread(scores.tensions)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the heads' loss is {loss.item()} in epoch {epoch}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            schedule.step()
            total += loss.item()
        logits = relevance_logits(heads, held, language)
        found = {
            query: average_precision(logits[:, n], held.relevant[:, query.kind, query.place])
            for n, query in enumerate(language.queries)
        }
        score = float(np.mean([found[query] for query in queries]))
        unseen = float(np.mean([found[query] for query in language.held_out] or [0.0]))
        report(
            {
                **{"epoch": epoch, "loss": total / n_batches},
                **{"validation_map": score, "validation_map_held_out": unseen},
            }
        )
        if score > best_score:
            best, best_score = copy.deepcopy(heads), score
    best.eval()
    calibrate(best, held, language)
    return best


def make_heads(language: Language, config: HeadsConfig) -> QueryHeads:
    """Builds untrained heads for a language."""
    fallback = torch.from_numpy(language.tokens(language.class_words[-1][:1])[0])
    return QueryHeads(len(language.labels), len(language.vocabulary), fallback, config)


def fit_information(heads: QueryHeads, training: Pictures) -> None:
    """Fits what a level loses in the original to what it loses at the network's resolution.

    A linear least-squares fit of logs over all patches of up to 64 training pictures.
    """
    rows = np.linspace(0, len(training.pixels) - 1, min(64, len(training.pixels))).astype(int)
    measured = squared_errors(originals([training.records[row].path for row in rows]))
    with torch.inference_mode():
        seen = PatchStatistics()(to_tensor(training.pixels[rows])).flatten(2).transpose(1, 2)
    inputs = seen.reshape(-1, seen.shape[-1]).double().numpy()
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    targets = np.log(measured.reshape(-1, measured.shape[-1]) + 1e-2)
    solution = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    with torch.no_grad():
        heads.information.loss.weight.copy_(torch.from_numpy(solution[:-1].T))
        heads.information.loss.bias.copy_(torch.from_numpy(solution[-1]))


@torch.inference_mode()
def relevance_logits(
    heads: QueryHeads, frozen: Frozen, language: Language, phrase: int = 0
) -> np.ndarray:
    """Returns FP32 ``[n, queries, N]`` for all queries, each said in its ``phrase``-th way."""
    heads.eval()
    texts = [language.phrases(q)[phrase % len(language.phrases(q))] for q in language.queries]
    tokens = torch.from_numpy(language.tokens(texts))[None]
    out = []
    for rows in torch.arange(len(frozen.relevant)).split(32):
        seen, statistics = frozen.rows(rows)
        out.append(heads(seen, statistics, tokens.expand(len(rows), -1, -1)).logits)
    return torch.cat(out).numpy()


def calibrate(heads: QueryHeads, frozen: Frozen, language: Language) -> None:
    """Fits scale and shift of the logits to the cross-entropy on a split."""
    logits = torch.from_numpy(relevance_logits(heads, frozen, language))
    truth = np.stack([frozen.relevant[:, q.kind, q.place] for q in language.queries], axis=1)
    target = torch.from_numpy(truth).float()
    parameters = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=50)

    def closure() -> Tensor:
        optimizer.zero_grad()
        scaled = logits * parameters[0] + parameters[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled, target)
        loss.backward()
        return loss

    optimizer.step(closure)
    heads.scale.fill_(parameters[0].item())  # type: ignore[operator]
    heads.shift.fill_(parameters[1].item())  # type: ignore[operator]
