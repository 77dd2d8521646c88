"""Recognises messages of a form that was seen before, byte by byte, without parsing them.

A client that asks the same model again sends the same bytes but for the tensors' and perhaps an
id's. Those lie in fields whose length is written before them. Where all other bytes of two messages
are equal, so are the lengths, and a parser takes the same way through both: what was found out
about the one holds for the other, but for the content of those fields, the holes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

Plan = TypeVar("Plan")
# Names and sizes under which forms are remembered; then all are forgotten, and learnt anew.
_MOST: Final = 1024
# Forms of one name and size: maps are written in any order, another one by each client.
_MOST_ALIKE: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """All bytes of a message but those in its holes.

    Attributes:
        fixed: where each piece between the holes begins, and its bytes.
        holes: where the others are, in the order in which they are handed out.
    """

    fixed: tuple[tuple[int, bytes], ...]
    holes: tuple[slice, ...]

    @classmethod
    def of(cls, message: bytes, holes: Sequence[slice]) -> Form:
        """The form of ``message``; holes do not overlap."""
        pieces: list[tuple[int, bytes]] = []
        at = 0
        for hole in sorted(holes, key=lambda hole: (hole.start, hole.stop)):
            pieces.append((at, message[at : hole.start]))
            at = hole.stop
        pieces.append((at, message[at:]))
        return cls(tuple(piece for piece in pieces if piece[1]), tuple(holes))

    def match(self, message: bytes) -> list[bytes] | None:
        """What is in the holes of ``message``, which is as long as the first one, if it fits."""
        for at, piece in self.fixed:
            if not message.startswith(piece, at):
                return None
        return [message[hole] for hole in self.holes]


class Forms(Generic[Plan]):
    """What was found out about each form. Thread-safe: two threads may learn a form twice."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[tuple[Form, Plan], ...]] = {}

    def find(self, name: str, message: bytes) -> tuple[Plan, list[bytes]] | None:
        """What is known about messages like this one, and what is in its holes."""
        for form, plan in self._known.get((name, len(message)), ()):
            holes = form.match(message)
            if holes is not None:
                return plan, holes
        return None

    def learn(self, name: str, message: bytes, holes: Sequence[slice], plan: Plan) -> None:
        """Remembers ``plan`` for messages like this one."""
        if len(self._known) >= _MOST:
            self._known.clear()
        key = (name, len(message))
        alike = self._known.get(key, ())
        self._known[key] = ((Form.of(message, holes), plan), *alike)[:_MOST_ALIKE]
