"""Everything that is reported of a trained run; the test split is looked at here, once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from crossfade.training.arr_coc import budgets, compare
from crossfade.training.arr_coc.baselines import AGNOSTIC, ARR_COC, ORACLE
from crossfade.training.arr_coc.compare import Scored
from crossfade.training.arr_coc.distortion import originals, squared_errors
from crossfade.training.arr_coc.metrics import average_precision
from crossfade.training.arr_coc.pictures import Pictures
from crossfade.training.arr_coc.run import Trained
from crossfade.training.arr_coc.train_heads import Frozen, look, relevance_logits
from crossfade.training.detection.records import Split


def score(trained: Trained, split: Split) -> tuple[Pictures, Frozen, Scored]:
    """Runs detector and heads over a split."""
    pictures = Pictures.load(trained.data.of(split), trained.data.labels)
    frozen = look(trained.backbone, pictures)
    logits = relevance_logits(trained.heads, frozen, trained.language)
    return pictures, frozen, Scored.of(frozen, logits, trained.language)


def evaluate(trained: Trained) -> dict[str, Any]:
    """Returns plain values; ``compare_automl_vs_arrcoc`` says most of them."""
    language = trained.language
    _, _, validation = score(trained, "validation")
    pictures, frozen, test = score(trained, "test")
    out = compare.compare_automl_vs_arrcoc(validation, test, language)
    groups = compare.groups(language, validation.truth, test.truth)
    out["coverage"] = budgets.coverage(test.scores, test.truth, groups)
    with torch.inference_mode():
        tokens = torch.from_numpy(language.tokens(["any"]))[None]
        seen, statistics = frozen.rows(torch.arange(len(frozen.relevant)))
        scores = trained.heads(seen, statistics, tokens.expand(len(statistics), -1, -1))
    by_class = {language.labels[language.queries[n].kind]: [n] for n in groups["class"]}
    relevance = {
        ARR_COC: _sigmoid(test.logits),
        AGNOSTIC: _sigmoid(test.scores[AGNOSTIC]),
        ORACLE: test.scores[ORACLE].astype(np.float32),
    }
    measured = squared_errors(originals([record.path for record in pictures.records]))
    out["quality_db"] = budgets.quality(
        relevance, scores.log_losses.numpy(), measured, test.truth, {**groups, **by_class}
    )
    paraphrases = []
    for number in range(3):
        logits = relevance_logits(trained.heads, frozen, language, phrase=number * 3)
        ranked = [average_precision(logits[:, q], test.truth[:, q]) for q in groups["class"]]
        paraphrases.append(float(np.mean(ranked)))
    out["paraphrases_average_precision"] = paraphrases
    return out


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
