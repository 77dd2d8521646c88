"""What many requests have in common: all of a request but the bytes of its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from crossfade.serving.tensors.raw import RawTensor

TensorForm = tuple[str, str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The inputs of all requests of one form; compared by identity.

    Whoever says that a request has this layout vouches for its names, dtypes, shapes and numbers
    of bytes: what was checked for one such request holds for all.

    Attributes:
        inputs: name, dtype and shape of each.
    """

    inputs: tuple[TensorForm, ...]

    def filled(self, data: Sequence[bytes]) -> list[RawTensor]:
        """The inputs of one request, whose bytes these are."""
        return [
            RawTensor(name, dtype, shape, raw)
            for (name, dtype, shape), raw in zip(self.inputs, data, strict=True)
        ]
