"""Whether members fit together: one specification for the tensors that they share. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from crossfade.ensemble.members import Known, Look
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, Unavailable
from crossfade.runtimes.core.model import TensorSpec

Shape = tuple[int, ...]
_AS_FILES: Final = "give both models preprocess: {name: image_bytes} (docs/preprocessing.md)"


def present(members: Sequence[tuple[str, Look]]) -> list[Known]:
    """The members, all of which have to be there.

    Raises:
        Unavailable: one is not, and why.
        FailedPrecondition: one is not as it is declared.
    """
    found: list[Known] = []
    for name, one in members:
        if isinstance(one, Known):
            found.append(one)
        else:
            raise absent(name, one)
    return found


def absent(name: str, why: CrossfadeError) -> CrossfadeError:
    """The error for an ensemble that lacks a member."""
    if isinstance(why, FailedPrecondition):
        return why
    return Unavailable(f"member '{name}' is not there: {why.message}")


def joined_inputs(members: Sequence[Known]) -> tuple[TensorSpec, ...]:
    """The inputs of all members; see ``joined``."""
    return joined([(spec, member.name) for member in members for spec in member.signature.inputs])


def joined(specs: Iterable[tuple[TensorSpec, str]]) -> tuple[TensorSpec, ...]:
    """Each input once, in the order of first appearance.

    Args:
        specs: inputs with the names of the members that take them.

    Raises:
        FailedPrecondition: two members want different tensors under one name.
    """
    found: dict[str, tuple[TensorSpec, str]] = {}
    for spec, member in specs:
        before = found.get(spec.name)
        if before is None:
            found[spec.name] = (spec, member)
        else:
            found[spec.name] = (_joined(before, (spec, member)), before[1])
    return tuple(spec for spec, _ in found.values())


def _joined(one: tuple[TensorSpec, str], other: tuple[TensorSpec, str]) -> TensorSpec:
    (a, of_a), (b, of_b) = one, other
    shape = intersection(a.shape, b.shape)
    if a.dtype != b.dtype or (shape is None and a.shape is not None):
        pictures = any(spec.shape is not None and len(spec.shape) == 4 for spec in (a, b))
        raise FailedPrecondition(
            f"input '{a.name}' is {describe(a)} for member '{of_a}' and {describe(b)} for"
            f" '{of_b}'; if they are different tensors, map one of them to another name"
            + ("; if both are pictures, " + _AS_FILES if pictures else "")
        )
    return dataclasses.replace(
        a,
        shape=shape,
        optional=a.optional and b.optional,
        alternative=a.alternative if a.alternative == b.alternative else None,
        cells=a.cells and b.cells,
    )


def intersection(a: Shape | None, b: Shape | None) -> Shape | None:
    """The shapes that fit both; ``None`` where nothing does, or anything."""
    if a is None or b is None:
        return b if a is None else a
    if len(a) != len(b) or any(-1 not in (x, y) and x != y for x, y in zip(a, b, strict=True)):
        return None
    return tuple(y if x == -1 else x for x, y in zip(a, b, strict=True))


def agree(a: Shape | None, b: Shape | None) -> bool:
    """Whether some tensor has both shapes."""
    return a is None or b is None or intersection(a, b) is not None


def rows_at_most(members: Sequence[Known]) -> int:
    """Rows that a request may have for all of them; 0 where one of them has no batch."""
    return min(member.max_rows for member in members)


def describe(spec: TensorSpec) -> str:
    """Dtype and shape, for a message."""
    return f"{spec.dtype} {'of any shape' if spec.shape is None else list(spec.shape)}"
