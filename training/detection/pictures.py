"""Decodes pictures as the server does: upright, RGB, Pillow's bilinear filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from crossfade.runtimes.core.errors import InvalidArgument

_MAX_PIXELS: Final = 50_000_000


def open_rgb(path: Path) -> Image.Image:
    """Decodes a file.

    Raises:
        InvalidArgument: it is missing, damaged, or no picture.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise InvalidArgument(f"'{path.name}' has more than {_MAX_PIXELS:,} pixels")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise InvalidArgument(f"the picture '{path.name}' is missing") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InvalidArgument(f"the picture '{path.name}' is truncated or damaged") from None


def decode(paths: Sequence[Path], height: int, width: int) -> np.ndarray:
    """Returns UINT8 ``[n, height, width, 3]``; raises as ``open_rgb``."""
    out = np.empty((len(paths), height, width, 3), dtype=np.uint8)
    for index, path in enumerate(paths):
        with open_rgb(path) as image:
            out[index] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return out
