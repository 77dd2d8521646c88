"""Which part of a picture goes where in the model's input, and the way back for boxes. Pure."""

from __future__ import annotations

import dataclasses
from typing import Literal, Self

import numpy as np

from crossfade.runtimes.core.model import Tensor

Fit = Literal["stretch", "crop", "letterbox"]


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of the picture, and the rectangle of the input that shows it.

    Attributes:
        source: left, top, right, bottom in the picture's pixels; fractions are allowed.
        left, top, width, height: in the input's pixels.
        picture: width and height of the picture.
        target: width and height of the input.
    """

    source: tuple[float, float, float, float]
    left: int
    top: int
    width: int
    height: int
    picture: tuple[int, int]
    target: tuple[int, int]

    @classmethod
    def fit(
        cls, picture: tuple[int, int], target: tuple[int, int], how: Fit, fraction: float = 1.0
    ) -> Self:
        """Places a picture.

        Args:
            picture: its width and height.
            target: the input's width and height.
            how: ``stretch`` shows all of it; ``crop`` the largest part in its middle that has the
                input's proportions, and of that ``fraction`` in each direction; ``letterbox``
                shows all in its own proportions, in the middle.
            fraction: see above.
        """
        (w, h), (tw, th) = picture, target
        whole = (0.0, 0.0, float(w), float(h))
        if how == "crop":
            scale = min(w / tw, h / th) * fraction
            cw, ch = tw * scale, th * scale
            left, top = max(0.0, (w - cw) / 2), max(0.0, (h - ch) / 2)
            source = (left, top, min(left + cw, w), min(top + ch, h))
            return cls(source, 0, 0, tw, th, picture, target)
        if how == "letterbox":
            scale = min(tw / w, th / h)
            iw, ih = max(1, min(tw, round(w * scale))), max(1, min(th, round(h * scale)))
            return cls(whole, (tw - iw) // 2, (th - ih) // 2, iw, ih, picture, target)
        return cls(whole, 0, 0, tw, th, picture, target)

    def back(self, boxes: Tensor) -> Tensor:
        """Boxes [n, 4] as fractions of the input to fractions of the picture, cut at its edges.

        A box is [ymin, xmin, ymax, xmax]; the result is FP32.
        """
        x0, y0, x1, y1 = self.source
        (w, h), (tw, th) = self.picture, self.target
        x = (boxes[:, 1::2] * tw - self.left) * ((x1 - x0) / self.width) + x0
        y = (boxes[:, 0::2] * th - self.top) * ((y1 - y0) / self.height) + y0
        moved = np.empty(boxes.shape, np.float32)
        moved[:, 1::2], moved[:, 0::2] = x / w, y / h
        return np.clip(moved, 0, 1, out=moved)
