"""The tables of a comparison as Markdown: what several runs came to, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from crossfade.training.arr_coc.baselines import (
    AGNOSTIC,
    ARR_COC,
    CENTRE_RULE,
    LABEL,
    ORACLE,
    RULE,
)

_METHODS: Final = {
    AGNOSTIC: "query-agnostic",
    LABEL: "label-filtered",
    RULE: "label, and the patch lies there",
    CENTRE_RULE: "label, and the detector's centre does",
    ARR_COC: "**ARR-COC**",
}
_GROUPS: Final = {
    "class": "class",
    "seen": "class and place, trained",
    "heldout": "held-out pairs",
}
_HALF: Final = "50%"
Evaluation = Mapping[str, Any]


def tables(runs: Sequence[tuple[str, Evaluation]]) -> str:
    """Returns Markdown; the values of the runs stand in their order, parted by " / ".

    Args:
        runs: name and ``evaluate``'s result of each; all of one language.
    """
    found = [evaluation for _, evaluation in runs]
    parts = [f"Runs: {' / '.join(name for name, _ in runs)}."]
    parts += ["\n".join(lines) for lines in (_precisions(found), _gains(found), _others(found))]
    return "\n\n".join(parts) + "\n"


def _precisions(found: Sequence[Evaluation]) -> Iterator[str]:
    yield "| queries | method | AP | P | R | P exact | P pooled |"
    yield "|---|---|---|---|---|---|---|"
    measures = ("average_precision", "precision", "recall", "precision_exact", "pooled_precision")
    for group, method in _pairs(found, _METHODS):
        values = [one["groups"][group][method] for one in found]
        cells = [_cell([value[measure] for value in values]) for measure in measures]
        yield _line(_GROUPS[group], _METHODS[method], *cells)


def _gains(found: Sequence[Evaluation]) -> Iterator[str]:
    yield "| gain in precision, % | at thresholds of validation | at equal recall | pooled |"
    yield "|---|---|---|---|"
    for group, method in _pairs(found, [name for name in _METHODS if name != ARR_COC]):
        gains = [one["gains"][f"{group}_vs_{method}"] for one in found]
        cells = [
            " / ".join(
                "{:+.0f} [{:.0f}, {:.0f}]".format(
                    *(100 * gain[kind + end] for end in ("", "_lower", "_upper"))
                )
                for gain in gains
            )
            for kind in ("gain", "exact", "pooled")
        ]
        yield _line(f"{_GROUPS[group]}: over {_METHODS[method]}", *cells)


def _others(found: Sequence[Evaluation]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    macros = [one["groups"]["class"][ARR_COC] for one in found]
    yield from _tokens("classes, macro", macros)
    share = [macro["token_reduction"] / macro["token_oracle"] for macro in macros]
    yield _line("… of the oracle's at that recall", _cell(share))
    for name, query in found[0]["queries"].items():
        if all(name in one["queries"] for one in found) and query["is_class"]:
            yield from _tokens(name, [one["queries"][name][ARR_COC] for one in found])
    for group in found[0]["coverage"][_HALF]:
        halves = [one["coverage"][_HALF][group] for one in found]
        name = f"relevant patches with 196 tokens at half of the tokens, {_GROUPS[group]}"
        yield _line(name, _cell([half[ARR_COC] for half in halves]))
        yield _line("… of the oracle's", _cell([half[ARR_COC] / half[ORACLE] for half in halves]))
    for group in found[0]["quality_db"]:
        decibels = [one["quality_db"][group] for one in found]
        gained = [db[ARR_COC] - db["uniform 196"] for db in decibels]
        informed = [db[ARR_COC] - db[f"{ARR_COC} without information"] for db in decibels]
        name = _GROUPS.get(group, group)
        yield _line(f"dB at half of the tokens over 196 everywhere, {name}", _cell(gained, "+.2f"))
        yield _line("… that information adds", _cell(informed, "+.2f"))
    errors = [max(group["calibration_error"] for group in one["groups"].values()) for one in found]
    yield _line("calibration error, largest of the groups", _cell(errors, ".4f"))
    reworded = [min(one["paraphrases_average_precision"]) for one in found]
    yield _line("AP of classes in other words, the least", _cell(reworded))


def _tokens(name: str, values: Sequence[Mapping[str, float]]) -> Iterator[str]:
    for title, measure in (
        (f"tokens saved, {name}", "token_reduction"),
        ("… at recall", "token_recall"),
        ("… at a recall of .90 on this split", "token_reduction_at_recall"),
        ("… at most", "token_ceiling"),
    ):
        yield _line(title, _cell([value[measure] for value in values]))


def _pairs(found: Sequence[Evaluation], methods: Sequence[str] | Mapping[str, Any]) -> Any:
    """Groups and methods that differ: without a place, the rules are the label."""
    for group in _GROUPS:
        if all(group in one["groups"] for one in found):
            for method in methods:
                if group != "class" or method not in (RULE, CENTRE_RULE):
                    yield group, method


def _cell(values: Sequence[float], form: str = ".3f") -> str:
    return " / ".join(format(value, form) for value in values)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
