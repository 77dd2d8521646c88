"""What a reference means where that is not what the repository says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.lifecycle.served import Served


@dataclasses.dataclass(frozen=True, slots=True)
class Detour:
    """A model that answers instead.

    Attributes:
        gives_ids: requests without an id get one, which their answers carry.
    """

    served: Served
    gives_ids: bool = False


Detours = Mapping[ModelRef, Detour | ModelRef]
