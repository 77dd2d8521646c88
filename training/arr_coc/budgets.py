"""What a fixed budget of tokens buys: relevant patches kept sharp, and how well they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from crossfade.training.arr_coc.allocator import (
    FULL,
    allocate,
    coverage_gains,
    quality_gains,
)
from crossfade.training.arr_coc.geometry import PATCHES
from crossfade.training.arr_coc.patch_statistics import LEVELS

REDUCTIONS: Final = (0.4, 0.5, 0.6)
_PEAK: Final = 255.0**2


def coverage(
    scores: Mapping[str, np.ndarray], truth: np.ndarray, groups: Mapping[str, list[int]]
) -> dict[str, Any]:
    """Returns the share of relevant patches with ``FULL`` tokens at a fixed budget.

    Args:
        scores: ``[n, queries, N]`` by method.
        truth: BOOL ``[n, queries, N]``.
        groups: the queries' numbers.

    Returns:
        By reduction, group and method: the macro mean over queries.
    """
    out: dict[str, Any] = {}
    for share in REDUCTIONS:
        budget = round((1 - share) * FULL * PATCHES)
        found = {
            method: _budgeted(coverage_gains(_positive(values)), budget) >= FULL
            for method, values in scores.items()
        }
        out[f"{share:.0%}"] = {
            group: {
                method: float(np.mean([kept[:, q][truth[:, q]].mean() for q in numbers]))
                for method, kept in found.items()
            }
            for group, numbers in groups.items()
        }
    return out


def quality(
    relevance: Mapping[str, np.ndarray],
    log_losses: np.ndarray,
    measured: np.ndarray,
    truth: np.ndarray,
    groups: Mapping[str, list[int]],
) -> dict[str, Any]:
    """Returns the PSNR of relevant patches at half of the tokens of ``FULL`` everywhere.

    Args:
        relevance: probabilities ``[n, queries, N]`` by method.
        log_losses: as the model predicts them, ``[n, N, levels]``.
        measured: squared errors of the originals at each level, ``[n, N, levels]``.
        truth: BOOL ``[n, queries, N]``.
        groups: the queries' numbers.

    Returns:
        By group (and each class) and method, decibels; of all relevant patches together.
    """
    predicted = torch.from_numpy(log_losses)[:, None]
    typical = predicted.mean(dim=(0, 2), keepdim=True).expand_as(predicted)
    exact = torch.from_numpy(np.log(measured + 1e-2))[:, None].float()
    budget = FULL * PATCHES // 2
    tokens: dict[str, np.ndarray] = {}
    for method, values in relevance.items():
        p = torch.from_numpy(values)
        tokens[method] = _budgeted(quality_gains(p, predicted), budget)
        tokens[f"{method} without information"] = _budgeted(quality_gains(p, typical), budget)
        tokens[f"{method} with true losses"] = _budgeted(quality_gains(p, exact), budget)
    some = torch.from_numpy(next(iter(relevance.values())))
    tokens["information only"] = _budgeted(quality_gains(torch.ones_like(some), predicted), budget)
    for level in (100, FULL):
        tokens[f"uniform {level}"] = np.full(some.shape, level)
    out: dict[str, Any] = {name: {} for name in groups}
    for method, given in tokens.items():
        errors = _errors(given, measured)  # [n, queries, N]
        for name, numbers in groups.items():
            decibels = [_decibels(errors[:, q][truth[:, q]]) for q in numbers]
            out[name][method] = float(np.mean(decibels))
    return out


def tokens_of(relevance: np.ndarray, budget: int) -> np.ndarray:
    """Returns tokens ``[..., N]`` that make relevant patches reach ``FULL`` first."""
    return _budgeted(coverage_gains(torch.from_numpy(relevance)), budget)


def _budgeted(gains: Tensor, budget: int) -> np.ndarray:
    wanted = torch.full(gains.shape[:-2], budget, dtype=torch.int64)
    return allocate(gains, wanted).numpy()


def _positive(scores: np.ndarray) -> Tensor:
    """Makes gains of scores of any range, in the same order within a picture."""
    ranks = torch.from_numpy(scores).argsort(dim=-1, stable=True).argsort(dim=-1)
    places: Tensor = (ranks.float() + 1) / scores.shape[-1]
    return places


def _errors(tokens: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Looks up the error of each patch; between two levels on the line of the logs."""
    logs = np.log(measured + 1e-6)[:, None]  # [n, 1, N, levels]
    place = np.interp(tokens, LEVELS, np.arange(len(LEVELS)))
    low = np.minimum(place.astype(int), len(LEVELS) - 2)
    wide = np.broadcast_to(logs, (*tokens.shape, len(LEVELS)))
    first = np.take_along_axis(wide, low[..., None], axis=-1)[..., 0]
    second = np.take_along_axis(wide, low[..., None] + 1, axis=-1)[..., 0]
    return np.asarray(np.exp(first + (place - low) * (second - first)))


def _decibels(errors: np.ndarray) -> float:
    return float(10 * np.log10(_PEAK / errors.mean()))
