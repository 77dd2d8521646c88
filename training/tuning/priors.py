"""What earlier runs have shown: trials out of the cards of trained versions.

AutoML does not publish the hyperparameters of its models. Where they are not in a record of one's
own, nothing is known of them, and nothing is put in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crossfade.serving.repository.lineage import Card
from crossfade.training.tuning.space import Adopted, Space
from crossfade.training.tuning.transfer import Finished


def of_cards(
    cards: Iterable[Card],
    space: Space,
    metric: str,
    *,
    larger_is_better: bool = False,
    rename: Mapping[str, str] | None = None,
) -> tuple[list[Finished], list[Adopted]]:
    """Trials of a search, one for each card that has a value for every parameter and the metric.

    Args:
        cards: of versions trained on one task.
        space: of the new search; a parameter ``a.b`` is ``b`` in the section ``a``.
        metric: of the cards, such as ``validation/accuracy``.
        larger_is_better: whether its sign is turned.
        rename: keys of the cards' configurations to the space's names, where they differ.

    Returns:
        The trials, and for every card what could be taken of it and why not more.
    """
    trials: list[Finished] = []
    all_adopted: list[Adopted] = []
    for card in cards:
        wanted = {*space.parameters, *(rename or {})}
        values = {k: v for k, v in _flat(card.config).items() if k in wanted}
        adopted = space.adopt(values, rename)
        all_adopted.append(adopted)
        # A value that was moved to a bound is not the one that the metric was measured with.
        exact = all(adopted.provenance[name] == "given" for name in space.parameters)
        if exact and metric in card.metrics:
            loss = card.metrics[metric]
            trials.append(Finished(adopted.values, -loss if larger_is_better else loss))
    return trials, all_adopted


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
