"""Image files to a model's input, one row each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import InferRequest, Tensor, TensorSpec
from crossfade.serving.batching.waiting import why_dead
from crossfade.serving.config.processing_config import Preprocess
from crossfade.serving.processing.decoding import decode
from crossfade.serving.processing.framing import Frame
from crossfade.serving.processing.pixels import Color, Layout, Pixels
from crossfade.serving.processing.resampling import resize

_COLORS: dict[int, Color] = {1: "gray", 3: "rgb"}


@dataclasses.dataclass(frozen=True, slots=True)
class ImageInput:
    """Makes the input ``spec`` of image files. Thread-safe.

    Attributes:
        spec: the model's input.
        name: what clients call it.
        row: shape of one row of it.
        size: height and width.
    """

    spec: TensorSpec
    name: str
    config: Preprocess
    pixels: Pixels
    row: tuple[int, int, int]
    size: tuple[int, int]

    @property
    def row_bytes(self) -> int:
        """Of one row of the input."""
        height, width, channels = self.row
        return height * width * channels * self.pixels.dtype.itemsize

    def read(self, request: InferRequest, files: Tensor) -> tuple[Tensor, list[Frame]]:
        """Decodes the files of a request.

        Args:
            request: asked after each picture whether anybody still waits for it.
            files: [n] of bytes.

        Returns:
            [n, *row], and how each picture lies in its row.

        Raises:
            InvalidArgument: a file is no picture that can be used; the message has its index.
            DeadlineExceeded, Cancelled: nobody waits any longer.
        """
        batch = np.empty((len(files), *self.row), self.pixels.dtype)
        frames: list[Frame] = []
        for index, data in enumerate(files.tolist()):
            dead = why_dead(request)
            if dead is not None:
                raise dead
            try:
                frames.append(self._one(data, batch[index]))
            except InvalidArgument as error:
                raise InvalidArgument(
                    f"the image at index {index} of input '{self.name}' {error.message}"
                ) from None
        return batch, frames

    def _one(self, data: bytes, into: Tensor) -> Frame:
        config = self.config
        picture = decode(data, config.max_pixels)
        image = picture.pixels(self.pixels.color == "gray", config.exif_orientation)
        how, (height, width) = config.resize, self.size
        frame = Frame.fit(image.size, (width, height), how.fit, how.crop_fraction)
        shown = resize(
            image,
            frame.height,
            frame.width,
            how.filter,
            antialias=how.antialias,
            box=frame.source,
        )
        if shown.shape[:2] != self.size:
            canvas = np.full((*self.size, shown.shape[2]), how.fill, shown.dtype)
            rows = slice(frame.top, frame.top + frame.height)
            canvas[rows, frame.left : frame.left + frame.width] = shown
            shown = canvas
        self.pixels.write(shown, into)
        return frame


def image_input(
    config: Preprocess, inputs: Sequence[TensorSpec], stored: tuple[float, int] | None
) -> ImageInput:
    """Reads off the model what the configuration does not say.

    Args:
        config: the section ``preprocess``.
        inputs: of the model.
        stored: the quantisation of the input, as the model has it; looked up by the caller.

    Raises:
        LoadFailed: the model has no such input, or the configuration contradicts it.
    """
    spec = find(config, inputs)
    assert spec.shape is not None
    layout = config.layout or _layout(spec)
    at = (1, 2, 3) if layout == "nhwc" else (2, 3, 1)
    height, width, channels = (spec.shape[axis] for axis in at)
    wanted = {"height": (height, config.resize.height), "width": (width, config.resize.width)}
    size = [_side(spec.name, side, *both) for side, both in wanted.items()]
    color = config.color or _COLORS.get(channels)
    if color is None or channels not in (-1, 1 if color == "gray" else 3):
        raise LoadFailed(
            f"preprocess: input '{spec.name}' has {channels} channels, which is not"
            f" {color or 'a picture'}; set color, or another layout than {layout}"
        )
    channels = 1 if color == "gray" else 3
    for key, values in (("mean", config.mean), ("std", config.std)):
        if values is not None and len(values) not in (1, channels):
            raise LoadFailed(f"preprocess.{key}: {len(values)} numbers for {channels} channels")
    dtype = NUMPY[spec.dtype]
    quantization = None
    if config.normalizes and dtype.kind in "iu":
        given = config.quantization
        quantization = (given.scale, given.zero_point) if given else stored
        if quantization is None:
            raise LoadFailed(
                f"preprocess: input '{spec.name}' is {spec.dtype}: how it stores normalised values"
                " is not known; set preprocess.quantization"
            )
    elif config.quantization is not None:
        raise LoadFailed(
            "preprocess.quantization is for normalised values (scale, mean, std) of an input of"
            " integers; without it such an input is given pixels"
        )
    pixels = Pixels(
        dtype,
        layout,
        color,
        1.0 if config.scale is None else config.scale,
        config.mean or (0.0,),
        config.std or (1.0,),
        quantization,
    )
    row = (*size, channels) if layout == "nhwc" else (channels, *size)
    return ImageInput(
        spec, config.name or spec.name, config, pixels, (row[0], row[1], row[2]), (size[0], size[1])
    )


def find(config: Preprocess, inputs: Sequence[TensorSpec]) -> TensorSpec:
    """The input that is a picture.

    Raises:
        LoadFailed: there is none, or not only one.
    """
    possible = [s for s in inputs if s.shape is not None and len(s.shape) == 4 and _is_number(s)]
    if config.input is not None:
        possible = [spec for spec in possible if spec.name == config.input]
    if len(possible) != 1:
        shown = ", ".join(f"'{s.name}' {s.dtype} {list(s.shape or ())}" for s in inputs)
        what = f"no input '{config.input}'" if config.input else "not exactly one input"
        raise LoadFailed(
            f"preprocess: the model has {what} of four dimensions that could be a picture, but"
            f" {shown}; set preprocess.input"
        )
    return possible[0]


def _is_number(spec: TensorSpec) -> bool:
    return spec.dtype not in ("BYTES", "BOOL")


def _layout(spec: TensorSpec) -> Layout:
    assert spec.shape is not None
    first, last = (spec.shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise LoadFailed(
            f"preprocess: the shape {list(spec.shape)} of input '{spec.name}' does not say where"
            " its channels are; set layout"
        )
    return "nchw" if first else "nhwc"


def _side(name: str, side: str, own: int, given: int | None) -> int:
    if own == -1:
        if given is None:
            raise LoadFailed(
                f"preprocess: the {side} of input '{name}' is not fixed; set resize.{side}"
            )
        return given
    if given not in (None, own):
        raise LoadFailed(f"preprocess: the {side} of input '{name}' is {own}, and not {given}")
    return own
