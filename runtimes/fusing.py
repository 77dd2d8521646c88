"""Several models of one platform as one graph: what a platform that can do it takes and gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """One model of those that are fused.

    Attributes:
        path: what its runtime opens.
        inputs: its inputs' names to those of the fused graph; inputs of one name are one.
        outputs: those that are wanted; what only others need is left out.
    """

    path: Path
    inputs: Mapping[str, str]
    outputs: Sequence[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Fused:
    """What became of them.

    Attributes:
        path: the fused graph's file.
        outputs: for each branch, its outputs' names to those of the fused graph.
        nodes: of all branches together.
        fused_nodes: of the fused graph.
        shared_nodes: of the fused graph, those that two branches or more need.
        weights_bytes: weights of all branches together.
        shared_bytes: weights that would be there again without fusing.
        saved: the share of all branches' arithmetic that is no longer done, 0 to 1; a count of
            multiplications from the shapes that are known, not a measurement.
    """

    path: Path
    outputs: tuple[Mapping[str, str], ...]
    nodes: int
    fused_nodes: int
    shared_nodes: int
    weights_bytes: int
    shared_bytes: int
    saved: float


class Fuse(Protocol):
    """Fuses models of its platform."""

    def __call__(self, branches: Sequence[Branch], folder: Path) -> Fused:
        """Fuses two models or more into a file in ``folder``, which is empty. Thread-safe.

        Raises:
            MissingExtra: an optional library is not installed.
            FailedPrecondition: these models cannot be one graph, and why.
            LoadFailed: anything else.
        """
        ...
