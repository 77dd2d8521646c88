"""A span that tells a test what became of it."""

from __future__ import annotations

from collections.abc import Sequence

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import InferResult


class KeptSpan:
    """Keeps its children, and how it ended: ``OK``, the code of an error, or not at all."""

    def __init__(self, name: str = "root", recorded: bool = True) -> None:
        self.name = name
        self.recorded = recorded
        self.children: list[KeptSpan] = []
        self.ended: str | None = None

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return (("traceparent", self.name),)

    def child(self, name: str) -> KeptSpan:
        made = KeptSpan(name)
        self.children.append(made)
        return made

    def end(self, result: InferResult | None) -> None:
        assert self.ended is None
        self.ended = result.code.name if isinstance(result, CrossfadeError) else "OK"

    def outcomes(self) -> dict[str, str | None]:
        """How each child ended."""
        return {child.name: child.ended for child in self.children}
