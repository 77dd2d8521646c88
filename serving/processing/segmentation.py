"""Segmentation: the class of every pixel, as a tensor or as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Tensor, Tensors, TensorSpec
from crossfade.serving.config.processing_config import Postprocess
from crossfade.serving.processing.answer import Outputs
from crossfade.serving.processing.framing import Frame


class Segmentation:
    """See ``Answer``. ``mask`` UINT8 [rows, height, width] or ``mask_png_bytes`` BYTES [rows].

    Of several channels the best one's number is the class. Of one channel, 1 is where it reaches
    the threshold. A mask of integers that has no channels is passed on.
    """

    labels: Mapping[str, Sequence[str]] = {}

    def __init__(self, config: Postprocess, outputs: Outputs) -> None:
        self._config = config
        self._outputs = outputs
        self._source = source = outputs.only("mask", ("mask",))
        shape = source.shape
        if shape is None or len(shape) not in (3, 4):
            raise LoadFailed(
                f"postprocess: output '{source.name}' is no mask: its shape is"
                f" {'not known' if shape is None else list(shape)}"
            )
        self._axis = config.class_axis % 4 if len(shape) == 4 else None
        if self._axis == 0:
            raise LoadFailed("postprocess.class_axis: the first dimension is the rows")
        if self._axis is not None and not 0 < shape[self._axis] <= 256:
            raise LoadFailed(
                f"postprocess: a mask has 1 to 256 classes, and output '{source.name}' has"
                f" {shape[self._axis]} in dimension {self._axis}; set class_axis"
            )
        self._is_png = config.png
        flat = tuple(size for axis, size in enumerate(shape[1:], 1) if axis != self._axis)
        self.needs = (source.name,)
        self.outputs = (
            TensorSpec("mask_png_bytes", "BYTES", (-1,))
            if config.png
            else TensorSpec("mask", "UINT8", (-1, *flat)),
        )

    def make(self, found: Tensors, _: Sequence[Frame] | None) -> dict[str, Tensor]:
        """See ``Answer``."""
        array = found[self._source.name]
        axis = self._axis
        if axis is None:
            mask = np.clip(array, 0, 255)
        elif array.shape[axis] == 1:
            limit = 0.5 if self._config.threshold is None else self._config.threshold
            mask = self._outputs.real(self._source.name, array).squeeze(axis) >= limit
        else:
            mask = array.argmax(axis)
        mask = mask.astype(np.uint8)
        if not self._is_png:
            return {"mask": mask}
        files = np.empty(len(mask), np.object_)
        files[:] = [_png(row) for row in mask]
        return {"mask_png_bytes": files}


def _png(mask: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()
