"""What a run of the image classifier may be told."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from crossfade.serving.config.processing_config import Fraction, Resize
from crossfade.training.core.config import Config
from crossfade.training.core.optimise import Count, Optimisation

Side = Annotated[int, pydantic.Field(ge=8, le=1024)]


class Data(Config):
    """Which pictures, and how they are shown to the network.

    Attributes:
        size: height and width that they are resized to.
        color: what the network sees.
        resize: as ``preprocess.resize`` of ``model.yaml``, which the version gets.
        validation_share, test_share: of each class, where the data have no splits of their own.
        shift: pixels that a training picture is moved by at most, in each direction.
        flip: whether half of the training pictures are mirrored.
    """

    size: Side = 64
    color: Literal["rgb", "gray"] = "rgb"
    resize: Resize = Resize()
    validation_share: Fraction = 0.1
    test_share: Fraction = 0.1
    shift: Annotated[int, pydantic.Field(ge=0, le=64)] = 2
    flip: bool = False


class Network(Config):
    """A plain convolutional network.

    Attributes:
        widths: channels of each stage; each halves height and width.
        dropout: before the last layer.
    """

    widths: Annotated[tuple[Count, ...], pydantic.Field(min_length=1, max_length=6)] = (24, 48, 96)
    dropout: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.2


class ImageClassifierConfig(Config):
    """One run.

    Attributes:
        focal_gamma: 0 is cross-entropy; larger looks at hard pictures more.
        batch_size: of one process.
        checkpoint_every_steps: and at the end of each epoch.
    """

    data: Data = Data()
    network: Network = Network()
    optimisation: Optimisation = Optimisation()
    epochs: Count = 10
    batch_size: Count = 32
    focal_gamma: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.0
    label_smoothing: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.0
    seed: Annotated[int, pydantic.Field(ge=0)] = 0
    checkpoint_every_steps: Count = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @pydantic.model_validator(mode="after")
    def _sizes(self) -> ImageClassifierConfig:
        if self.data.size >> len(self.network.widths) < 1:
            raise ValueError("network.widths has too many stages for data.size")
        return self
