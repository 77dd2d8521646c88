"""What a warm start may be told."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from crossfade.serving.config.processing_config import Fraction, Resize
from crossfade.training.backbones.heads import Head
from crossfade.training.core.config import Config
from crossfade.training.core.optimise import Count, Optimisation, Positive
from crossfade.training.image_classifier.config import Data, Side


class Pictures(Config):
    """Which pictures, and how they are shown.

    Attributes:
        size: height and width; the export's own where it has one.
        resize: as ``preprocess.resize`` of ``model.yaml``, which the version gets.
        validation_share, test_share: of each class, where the data have no splits of their own.
    """

    size: Side | None = None
    resize: Resize = Resize()
    validation_share: Fraction = 0.1
    test_share: Fraction = 0.1

    def data(self, side: int, channels: int) -> Data:
        """For the reader of pictures; they are not changed at random, for features are cached."""
        return Data(
            size=side,
            color="gray" if channels == 1 else "rgb",
            resize=self.resize,
            validation_share=self.validation_share,
            test_share=self.test_share,
            shift=0,
        )


class WarmStartConfig(Config):
    """One run: a probe of the head alone, then stages of the backbone, the last ones first.

    Attributes:
        pixels: range of an export's input that takes real numbers and does not say which.
        cut: a tensor's or node's name to cut at; found by structure without it.
        probe_epochs: of the head, on cached features.
        stages: how many stages are opened at most, one at a time.
        stage_epochs: after each is opened.
        stage_rate: the last stage's learning rate as a share of the head's.
        stage_decay: of the rate, from each stage to the one before it (ULMFiT, Howard and Ruder
            2018: 1 / 2.6).
        stage_warmup_steps: updates in which all rates rise from 0 after a stage is opened; half of
            the stage's at most. AdamW's first ones move each weight by the whole rate.
        moving_statistics: batch normalisations of open stages go on with their statistics.
        cache_bytes: of the feature cache, at most.
    """

    pixels: Literal["0..255", "0..1", "-1..1"] | None = None
    cut: str | None = None
    data: Pictures = Pictures()
    head: Head = Head()
    optimisation: Optimisation = Optimisation()
    batch_size: Count = 32
    probe_epochs: Count = 20
    stages: Annotated[int, pydantic.Field(ge=0)] = 2
    stage_epochs: Count = 3
    stage_rate: Positive = 0.1
    stage_decay: Annotated[float, pydantic.Field(gt=0, le=1)] = 1 / 2.6
    stage_warmup_steps: Annotated[int, pydantic.Field(ge=0)] = 10
    moving_statistics: bool = False
    label_smoothing: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    cache_bytes: Count = 2 << 30
    device: Literal["auto", "cpu", "cuda"] = "auto"
