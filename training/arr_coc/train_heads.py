"""Trains the heads on features of the frozen detector, which are computed once."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Final

import numpy as np
import torch
from torch import Tensor

from crossfade.training.arr_coc.augmentation import view
from crossfade.training.arr_coc.backbone import Detection, Detector
from crossfade.training.arr_coc.config import HeadsConfig
from crossfade.training.arr_coc.distortion import originals, squared_errors
from crossfade.training.arr_coc.geometry import PATCHES, relevant
from crossfade.training.arr_coc.losses import relevance_loss, tension_spread
from crossfade.training.arr_coc.metrics import average_precision
from crossfade.training.arr_coc.model import QueryHeads
from crossfade.training.arr_coc.patch_statistics import PatchStatistics
from crossfade.training.arr_coc.pictures import Pictures, to_tensor
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.stage import Progress, Stage, Stateful
from crossfade.training.core import seeds
from crossfade.training.core.optimise import Updates
from crossfade.training.core.order import EpochBatches

_SPREAD: Final = 0.02  # weight of what keeps the tensions from collapsing


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
def look(backbone: Detector, pictures: Pictures) -> Frozen:
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
def look_at_views(backbone: Detector, pictures: Pictures, views: int, seed: int) -> Frozen:
    """Runs the frozen parts over ``views`` of each picture; FP16 features, to save memory."""
    statistics = PatchStatistics()
    details, numbers, truths = [], [], []
    for number in range(views):
        for rows in np.array_split(np.arange(len(pictures.pixels)), len(pictures.pixels) // 16 + 1):
            pixels = []
            for row in rows:
                rng = np.random.default_rng(seeds.derived(seed, "heads view", number, int(row)))
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
    backbone: Detector,
    training: Pictures,
    validation: Pictures,
    language: Language,
    config: HeadsConfig,
    *,
    seed: int,
    stage: Stage,
) -> QueryHeads:
    """Trains, or goes on from the stage's last checkpoint.

    Returns:
        The heads that were best on the trained queries of ``validation``, calibrated on it.

    Raises:
        NotFinite: the loss is no longer a number.
    """
    views = look_at_views(backbone, training, config.views, seed)
    held = look(backbone, validation)
    torch.manual_seed(seeds.derived(seed, "heads"))
    heads = make_heads(language, config)
    fit_information(heads, training)
    best = copy.deepcopy(heads)
    queries = language.trained
    kinds, places = np.array([(query.kind, query.place) for query in queries]).T
    phrases = [language.tokens(language.phrases(query)) for query in queries]
    batches = EpochBatches(len(views.relevant), config.batch_size, seed)
    steps = config.epochs * len(batches)
    updates = Updates(heads, config.optimisation, steps, torch.device("cpu"))
    progress = Progress()
    parts: dict[str, Stateful] = {"heads": heads, "best": best, "updates": updates}
    stage.resume(progress, parts)

    def loss(rows: list[int], rng: np.random.Generator) -> Tensor:
        said = [[p[rng.integers(len(p))] for p in phrases] for _ in rows]
        truth = torch.from_numpy(views.relevant[rows][:, kinds, places]).float()
        scores = heads(*views.rows(torch.tensor(rows)), torch.from_numpy(np.array(said)))
        found = relevance_loss(scores.logits, truth)
        if scores.tensions is not None:
            found = found + _SPREAD * tension_spread(scores.tensions)
        return found

    for epoch in range(progress.epoch + 1, config.epochs + 1):
        heads.train()
        batches.epoch = epoch
        rng = np.random.default_rng(seeds.derived(seed, "phrases", epoch))
        total = 0.0
        for number, rows in enumerate(batches, 1):
            total += updates.take(functools.partial(loss, rows, rng))
            stage.say(updates.step, steps, f"loss {total / number:.4f}")
        logits = relevance_logits(heads, held, language)
        precisions = {
            query: average_precision(logits[:, n], held.relevant[:, query.kind, query.place])
            for n, query in enumerate(language.queries)
        }
        progress.epoch = epoch
        if (score := _mean([precisions[q] for q in queries])) > progress.best:
            best.load_state_dict(heads.state_dict())
            progress.best = score
        values = {"loss": total / len(batches), "validation/map": score}
        values["validation/map_held_out"] = _mean([precisions[q] for q in language.held_out])
        stage.record(updates.step, values, progress, parts)
    best.eval()
    calibrate(best, held, language)
    return best


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


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

    def closure() -> float:
        optimizer.zero_grad()
        scaled = logits * parameters[0] + parameters[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled, target)
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    heads.scale.fill_(parameters[0].item())  # type: ignore[operator]
    heads.shift.fill_(parameters[1].item())  # type: ignore[operator]
