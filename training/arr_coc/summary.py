"""What several runs say together: the worst of the shipped split's seeds, the others beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossfade.training.arr_coc.baselines import AGNOSTIC, ARR_COC, LABEL, RULE


def card_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Returns what a version's card says of its evaluation on the test split."""
    groups, gains = evaluation["groups"], evaluation["gains"]
    out = {
        f"test/{group}/average_precision": values[ARR_COC]["average_precision"]
        for group, values in groups.items()
    }
    for pair in (f"class_vs_{AGNOSTIC}", f"class_vs_{LABEL}", f"heldout_vs_{LABEL}"):
        if pair in gains:
            out[f"test/gain_{pair}"] = gains[pair]["gain"]
    out["test/token_reduction"] = groups["class"][ARR_COC]["token_reduction"]
    out["test/token_recall"] = groups["class"][ARR_COC]["token_recall"]
    return out


def summarise(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, float]:
    """Returns the headline numbers of runs.

    A gain's lower end is the lowest of all runs; tokens, recall and precisions are means.

    Args:
        runs: name and evaluation of each.
    """
    evaluations = [evaluation for _, evaluation in runs]

    def lowest(pair: str, what: str = "gain_lower") -> float:
        return min(float(e["gains"][pair][what]) for e in evaluations)

    def mean(group: str, what: str, method: str = ARR_COC) -> float:
        return float(np.mean([e["groups"][group][method][what] for e in evaluations]))

    return {
        "gain_vs_agnostic_class_lower": lowest(f"class_vs_{AGNOSTIC}"),
        "gain_vs_agnostic_heldout_lower": lowest(f"heldout_vs_{AGNOSTIC}"),
        "gain_vs_label_class_lower": lowest(f"class_vs_{LABEL}"),
        "gain_vs_label_heldout_lower": lowest(f"heldout_vs_{LABEL}"),
        "gain_vs_rule_heldout_lower": lowest(f"heldout_vs_{RULE}"),
        "token_reduction_macro": mean("class", "token_reduction"),
        "token_share_of_oracle": mean("class", "token_reduction") / mean("class", "token_oracle"),
        "recall": mean("class", "token_recall"),
        "average_precision_class": mean("class", "average_precision"),
        "average_precision_heldout": mean("heldout", "average_precision"),
        "coverage_class_half": float(
            np.mean([e["coverage"]["50%"]["class"][ARR_COC] for e in evaluations])
        ),
    }
