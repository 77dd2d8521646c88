"""An image file as the tensor of a model that takes pictures as uint8, and only of such a one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

_MODES = {1: "L", 3: "RGB"}


def load(path: Path, name: str, dtype: str, shape: list[int]) -> tuple[Tensor, str]:
    """Decodes and resizes an image.

    Args:
        path: a JPEG, PNG, GIF, BMP … file.
        name: the input's name, for messages.
        dtype: the input's element type.
        shape: the input's shape, [batch, height, width, 1 or 3].

    Returns:
        UINT8 of shape [1, height, width, channels], and a note that says what was done.

    Raises:
        InvalidArgument: the input is not such a picture, or the file is none.
    """
    if dtype != "UINT8" or len(shape) != 4 or shape[3] not in _MODES or -1 in shape[1:]:
        raise InvalidArgument(
            f"input '{name}' is {dtype} {shape}: how a picture becomes that is not known; send the"
            " tensor as .npy or JSON"
        )
    from PIL import Image, UnidentifiedImageError

    height, width, channels = shape[1:]
    try:
        with Image.open(path) as image:
            was = image.size
            picture = image.convert(_MODES[channels])
    except (UnidentifiedImageError, OSError):
        raise InvalidArgument(f"'{path}' is not an image that can be read") from None
    if was != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture, dtype=np.uint8).reshape(1, height, width, channels)
    note = f"{path.name}: {was[0]}x{was[1]} -> {width}x{height} (bilinear), {_MODES[channels]}"
    return array, note
