"""What ARR-COC is compared with; all on the same frozen detector and the same patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from crossfade.training.arr_coc.geometry import (
    GRID_HEIGHT,
    GRID_WIDTH,
    OFFSET_SCALE,
    PATCHES,
    PLACES,
)
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.train_heads import Frozen

AGNOSTIC: Final = "agnostic"  # objectness: what an AutoML detector says before its classes
LABEL: Final = "label"  # the detector's class that the query names
RULE: Final = "label_rule"  # and a patch must lie where the query says
CENTRE_RULE: Final = "label_centre_rule"  # and its box must have its centre there
ARR_COC: Final = "arr_coc"
ORACLE: Final = "oracle"
_BEHIND: Final = 1e3  # what a rule excludes is ranked after everything else, and not at random


def scores(frozen: Frozen, logits: np.ndarray, language: Language) -> Mapping[str, np.ndarray]:
    """Scores every patch for every query by every method; higher is more relevant.

    Args:
        frozen: of ``n`` pictures.
        logits: of the heads, ``[n, queries, N]``.
        language: of the queries.

    Returns:
        FP32 ``[n, queries, N]`` by the method's name.
    """
    queries = language.queries
    n = len(logits)
    objectness = frozen.seen.objectness.flatten(1).numpy()
    by_class = frozen.seen.class_logits.flatten(2).numpy()
    statistics = frozen.statistics.flatten(2).numpy()
    every = np.concatenate([by_class, objectness[:, None]], axis=1)  # [n, kinds, N]
    kinds = [query.kind for query in queries]
    label = every[:, kinds]
    inside = np.stack([_in_place(*_patch_centres(), PLACES[q.place]) for q in queries])
    x, y = _box_centres(frozen)
    centred = np.stack(
        [_in_place(x[:, q.kind], y[:, q.kind], PLACES[q.place]) for q in queries], axis=1
    )
    rng = np.random.default_rng(0)

    def same(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:, None], len(queries), axis=1)

    return {
        "random": rng.random(logits.shape, dtype=np.float32),
        "entropy": same(statistics[:, 0]),
        "edge": same(statistics[:, 1]),
        AGNOSTIC: same(objectness),
        LABEL: label,
        RULE: label - _BEHIND * ~np.broadcast_to(inside[None], (n, *inside.shape)),
        CENTRE_RULE: label - _BEHIND * ~centred,
        ARR_COC: logits,
        ORACLE: truth(frozen, language).astype(np.float32),
    }


def truth(frozen: Frozen, language: Language) -> np.ndarray:
    """Returns BOOL ``[n, queries, N]``."""
    return np.stack([frozen.relevant[:, q.kind, q.place] for q in language.queries], axis=1)


def _patch_centres() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.divmod(np.arange(PATCHES), GRID_WIDTH)
    return (x + 0.5) / GRID_WIDTH, (y + 0.5) / GRID_HEIGHT


def _box_centres(frozen: Frozen) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the detector puts the centres of the boxes, ``[n, kinds, N]`` each."""
    offsets = frozen.seen.offsets.flatten(2).numpy() / OFFSET_SCALE
    offsets = offsets.reshape(len(offsets), -1, 2, PATCHES)
    best = frozen.seen.class_logits.flatten(2).numpy().argmax(axis=1)  # [n, N]
    likeliest = np.take_along_axis(offsets, best[:, None, None], axis=1)
    offsets = np.concatenate([offsets, likeliest], axis=1)
    x, y = _patch_centres()
    return offsets[:, :, 0] + x, offsets[:, :, 1] + y


def _in_place(x: np.ndarray, y: np.ndarray, place: str) -> np.ndarray:
    tests = {"left": x < 0.5, "right": x >= 0.5, "top": y < 0.5, "bottom": y >= 0.5}
    return tests[place] if place in tests else np.ones_like(x, dtype=bool)
