"""What became of an ensemble's members, for metrics and metadata."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class FusionState:
    """Whether members are answered by a fused graph, and what that shares.

    Attributes:
        reason: why there is no fused graph; empty where there is one.
        saved: see ``runtimes.ort.fusion.Fused``, as the next ones.
        memory_bytes: what the fused graph takes at most, beside the members.
        difference: see ``Checked``.
    """

    reason: str = "not tried yet"
    saved: float = 0.0
    nodes: int = 0
    fused_nodes: int = 0
    shared_nodes: int = 0
    shared_bytes: int = 0
    memory_bytes: int = 0
    difference: float = 0.0

    @property
    def fused(self) -> bool:
        """Whether the fused graph answers."""
        return not self.reason

    def __str__(self) -> str:
        """In a sentence."""
        if not self.fused:
            return f"not fused: {self.reason}"
        return (
            f"fused: {self.shared_nodes} of {self.fused_nodes} nodes and {self.shared_bytes} bytes"
            f" of weights are shared, {self.saved:.0%} of the work is saved"
        )
