"""What a training run is told; each file in ``configs/`` is one, and says what to expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic

from crossfade.training.core.config import Config
from crossfade.training.core.optimise import Count, Optimisation
from crossfade.training.core.schedules import Schedule

_ONE_CYCLE = Schedule(kind="one_cycle", rise=0.15)


class BackboneConfig(Config):
    """How the detector is trained.

    Attributes:
        pixels: range of an export's input that takes real numbers and does not say which.
        cut: a tensor's or node's name of the export to cut at; found by structure without it.
        averaging: of itself that the running mean of the weights keeps each step.
        validate_every: epochs; a checkpoint is written then, too.
    """

    pixels: Literal["0..255", "0..1", "-1..1"] | None = None
    cut: str | None = None
    epochs: Count = 32
    batch_size: Count = 16
    averaging: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.98
    validate_every: Count = 4
    optimisation: Optimisation = Optimisation(
        learning_rate=3e-3, weight_decay=0.02, clip_norm=5.0, precision="bf16", schedule=_ONE_CYCLE
    )


class HeadsConfig(Config):
    """How the query-aware heads are built and trained.

    Attributes:
        views: of each training picture, whose frozen features are computed once and kept.
        information, salience, tension: parts of the relevance besides the coupling.
        centres: the coupling sees where the detector puts the centres of boxes.
        width: of a word's predicate.
    """

    epochs: Count = 12
    views: Count = 6
    batch_size: Count = 16
    width: Count = 48
    information: bool = False
    salience: bool = False
    tension: bool = False
    centres: bool = True
    optimisation: Optimisation = Optimisation(
        learning_rate=5e-3, weight_decay=0.02, clip_norm=5.0, schedule=_ONE_CYCLE
    )


class ArrCocConfig(Config):
    """A whole run.

    Attributes:
        seed: of weights, views and order.
        words: ways to say a class, by label; the label itself where there are none.
        any_words: ways to say "whatever class".
        held_out: (label, place) that no training query asks for; "any" is a label here.
    """

    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    words: Mapping[str, tuple[str, ...]] = pydantic.Field(default_factory=dict)
    any_words: Annotated[tuple[str, ...], pydantic.Field(min_length=1)] = ("anything", "everything")
    held_out: tuple[tuple[str, str], ...] = ()
    backbone: BackboneConfig = BackboneConfig()
    heads: HeadsConfig = HeadsConfig()
