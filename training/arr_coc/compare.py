"""Compares ARR-COC with the baselines on a test split, with thresholds of the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from crossfade.training.arr_coc import baselines
from crossfade.training.arr_coc.allocator import FULL, LEAST
from crossfade.training.arr_coc.baselines import AGNOSTIC, ARR_COC, CENTRE_RULE, LABEL, RULE
from crossfade.training.arr_coc.metrics import Ranking, average_precision, calibration_error
from crossfade.training.arr_coc.queries import Language
from crossfade.training.arr_coc.train_heads import Frozen

RECALL: Final = 0.80  # at which precisions are compared
TOKEN_RECALL: Final = 0.90  # at which tokens are counted
TOKEN_RECALL_AIM: Final = 0.95  # on the validation split, so that the test split reaches the above
RESAMPLES: Final = 2000
EXACT_RESAMPLES: Final = 300
_CAUTION: Final = 0.10  # thresholds are such that the recall is reached in 90 % of resamples
GAINS_OVER: Final = (AGNOSTIC, LABEL, RULE, CENTRE_RULE)


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """One split as every method ranks it.

    Attributes:
        scores: ``[n, queries, N]`` by method.
        truth: BOOL ``[n, queries, N]``.
        logits: of ARR-COC, calibrated.
    """

    scores: Mapping[str, np.ndarray]
    truth: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, frozen: Frozen, logits: np.ndarray, language: Language) -> Scored:
        """Scores a split by every method."""
        scores = baselines.scores(frozen, logits, language)
        return cls(scores, baselines.truth(frozen, language), logits)


def groups(language: Language, *truths: np.ndarray) -> dict[str, list[int]]:
    """Returns the queries' numbers by group, of those that have an answer in every split."""
    out: dict[str, list[int]] = {"class": [], "seen": [], "heldout": []}
    for number, query in enumerate(language.queries):
        if not all(truth[:, number].any() for truth in truths):
            continue
        if query in language.held_out:
            out["heldout"].append(number)
        elif query.place:
            out["seen"].append(number)
        elif query.kind < len(language.labels):
            out["class"].append(number)
    return {name: numbers for name, numbers in out.items() if numbers}


def compare_automl_vs_arrcoc(
    validation: Scored, test: Scored, language: Language, seed: int = 0
) -> dict[str, Any]:
    """Compares precision at equal recall, average precision, tokens and calibration.

    Returns:
        Plain values: ``queries`` (by query and method), ``groups`` (macro means by group and
        method), ``gains`` (relative, with 95 % intervals of a bootstrap over pictures).
    """
    names = [language.phrases(query)[0] for query in language.queries]
    rankings = {
        method: [Ranking.of(values[:, q], test.truth[:, q]) for q in range(len(names))]
        for method, values in test.scores.items()
    }
    found = groups(language, validation.truth, test.truth)
    by_query: dict[str, dict[str, Any]] = {
        name: {
            method: _one(validation, test, rankings[method][q], method, q) for method in test.scores
        }
        | {"prevalence": float(test.truth[:, q].mean()), "is_class": q in found.get("class", ())}
        for q, name in enumerate(names)
        if test.truth[:, q].any() and validation.truth[:, q].any()
    }
    by_group = {
        group: {
            method: {
                measure: float(np.mean([by_query[names[q]][method][measure] for q in numbers]))
                for measure in by_query[names[numbers[0]]][method]
            }
            | {
                "pooled_precision": float(
                    _pooled(
                        [int(test.truth[:, q].sum()) for q in numbers],
                        [by_query[names[q]][method]["precision_exact"] for q in numbers],
                    )
                )
            }
            for method in test.scores
        }
        | {"calibration_error": _calibration(test, numbers)}
        for group, numbers in found.items()
    }
    gains = _gains(validation, test, rankings, found, np.random.default_rng(seed))
    return {"queries": by_query, "groups": by_group, "gains": gains}


def careful_threshold(scores: np.ndarray, truth: np.ndarray, recall: float) -> float:
    """Returns the threshold that reaches ``recall`` in 90 % of resamples of the pictures.

    Args:
        scores: ``[n, N]``.
        truth: BOOL ``[n, N]``.
        recall: to be reached.
    """
    rng = np.random.default_rng(0)
    ranking = Ranking.of(scores, truth)
    pictures, patches = scores.shape
    found = []
    for weights in rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=100):
        if truth[weights > 0].any():
            found.append(ranking.threshold_at(recall, np.repeat(weights, patches)))
    return float(np.quantile(found, _CAUTION))


def reduction(chosen: float) -> float:
    """Returns the share of tokens saved where ``chosen`` of the patches have FULL, others LEAST."""
    return (1 - chosen) * (FULL - LEAST) / FULL


def _one(
    validation: Scored, test: Scored, ranking: Ranking, method: str, query: int
) -> dict[str, float]:
    """Measures one method on one query."""
    scores, truth = test.scores[method][:, query], test.truth[:, query]
    known, known_truth = validation.scores[method][:, query], validation.truth[:, query]
    threshold = Ranking.of(known, known_truth).threshold_at(RECALL)
    chosen = scores >= threshold
    careful = scores >= careful_threshold(known, known_truth, TOKEN_RECALL_AIM)
    positives = max(1, int(truth.sum()))
    at_recall = positives * TOKEN_RECALL / max(1e-9, ranking.precision_at(TOKEN_RECALL))
    return {
        "average_precision": average_precision(scores, truth),
        "precision": float(truth[chosen].mean()) if chosen.any() else 0.0,
        "recall": float(chosen[truth].mean()),
        "precision_exact": ranking.precision_at(RECALL),
        "token_reduction": reduction(float(careful.mean())),
        "token_recall": float(careful[truth].mean()),
        "token_reduction_at_recall": reduction(min(1.0, at_recall / truth.size)),
        "token_ceiling": reduction(float(truth.mean())),
        "token_oracle": reduction(float(truth.mean()) * float(careful[truth].mean())),
    }


def _pooled(positives: Sequence[Any], precisions: Sequence[Any]) -> Any:
    """Returns the precision over all patches of all queries, each at the same recall.

    Args:
        positives: relevant patches of each query; numbers or arrays over resamples.
        precisions: the same.
    """
    pairs = zip(positives, precisions, strict=True)
    taken = sum(found / np.maximum(precision, 1e-9) for found, precision in pairs)
    return sum(positives) / np.maximum(taken, 1e-9)


def _calibration(test: Scored, numbers: Sequence[int]) -> float:
    probabilities = 1 / (1 + np.exp(-test.logits[:, numbers]))
    return calibration_error(probabilities, test.truth[:, numbers])


def _gains(
    validation: Scored,
    test: Scored,
    rankings: Mapping[str, Sequence[Ranking]],
    found: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Resamples pictures; every method and query sees the same resamples.

    ``gain`` is of precisions at the thresholds that reach the recall on the validation split,
    ``exact`` of those at exactly that recall on the test split, where each resample has its own:
    both of means over the queries. ``pooled`` is of ``exact``'s cuts, over all patches together.
    """
    pictures, _, patches = test.truth.shape
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=RESAMPLES)
    methods = (ARR_COC, *GAINS_OVER)
    fixed, exact, positives = {}, {}, {}
    for method in methods:
        for q in sorted({q for members in found.values() for q in members}):
            known = Ranking.of(validation.scores[method][:, q], validation.truth[:, q])
            chosen = test.scores[method][:, q] >= known.threshold_at(RECALL)
            counts = np.stack([(chosen & test.truth[:, q]).sum(axis=1), chosen.sum(axis=1)])
            weights = np.concatenate([np.ones((1, pictures), dtype=int), drawn])
            hits, taken = counts @ weights.T
            fixed[method, q] = hits / np.maximum(taken, 1)
            ranking = rankings[method][q]
            few = [np.repeat(w, patches) for w in weights[: EXACT_RESAMPLES + 1]]
            exact[method, q] = np.array([ranking.precision_at(RECALL, w) for w in few])
            positives[q] = test.truth[:, q].sum(axis=1) @ weights[: EXACT_RESAMPLES + 1].T

    out: dict[str, Any] = {}
    for group, members in found.items():
        means = {  # [1 + resamples] by kind and method
            method: {
                "gain": np.mean([fixed[method, q] for q in members], axis=0),
                "exact": np.mean([exact[method, q] for q in members], axis=0),
                "pooled": _pooled(
                    [positives[q] for q in members], [exact[method, q] for q in members]
                ),
            }
            for method in methods
        }
        for method in GAINS_OVER:
            entry: dict[str, float] = {}
            for name, ours in means[ARR_COC].items():
                ratios = ours / np.maximum(means[method][name], 1e-9) - 1
                low, high = np.quantile(ratios[1:], [0.025, 0.975])
                entry |= {name: float(ratios[0]), f"{name}_lower": float(low)}
                entry |= {f"{name}_upper": float(high)}
            out[f"{group}_vs_{method}"] = entry
    return out
