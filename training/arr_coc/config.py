"""What a training run is told; the files in ``configs/`` each make one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """How the detector is trained; ``averaging`` is what the running mean keeps of itself a step."""

    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    clip_norm: float = 5.0
    averaging: float = 0.98
    validate_every: int = 5
    mixed_precision: bool = True


@dataclasses.dataclass(frozen=True)
class HeadsConfig:
    """How the query-aware heads are built and trained.

    Attributes:
        views: of each training picture, whose frozen features are computed once and kept.
        information, salience, tension: parts of the relevance besides the coupling.
        detector_outputs: the coupling sees the detector's answers besides its features.
        facets: what a query is split into; a patch must fit every one of them.
    """

    epochs: int = 16
    views: int = 8
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    clip_norm: float = 5.0
    width: int = 48
    facets: int = 3
    information: bool = False
    salience: bool = False
    tension: bool = False
    detector_outputs: bool = True


@dataclasses.dataclass(frozen=True)
class ArrCocConfig:
    """A whole run.

    Attributes:
        words: ways to say a class, by label; the label itself where there are none.
        any_words: ways to say "whatever class".
        held_out: (label, place) that no training query asks for; "any" is a label here.
    """

    words: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    any_words: tuple[str, ...] = ("anything", "any object", "everything")
    held_out: tuple[tuple[str, str], ...] = ()
    backbone: BackboneConfig = BackboneConfig()
    heads: HeadsConfig = HeadsConfig()
