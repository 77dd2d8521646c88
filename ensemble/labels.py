"""Class scores aligned by label, never by index."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from crossfade.runtimes.core.errors import FailedPrecondition, Internal
from crossfade.runtimes.core.model import Tensor


def canonical(label: str) -> str:
    """The form in which labels are compared: Unicode NFC, runs of white space as one space.

    Case counts: ``US`` and ``us`` may be two classes of one model.
    """
    return " ".join(unicodedata.normalize("NFC", label).split())


def order_of(wanted: Sequence[str], given: Sequence[str]) -> npt.NDArray[np.intp] | None:
    """For each wanted label its place among those given; ``None`` where they stand as wanted.

    Raises:
        FailedPrecondition: they are not the same labels; the message lists those that only one has.
    """
    first, other = [canonical(label) for label in wanted], [canonical(label) for label in given]
    if first == other:
        return None
    different = sorted(set(first) ^ set(other))
    if different or len(set(other)) < len(other):
        raise FailedPrecondition(
            ", ".join(repr(label) for label in different[:5]) or "one label stands there twice"
        )
    place = {label: number for number, label in enumerate(other)}
    return np.array([place[label] for label in first], np.intp)


@dataclasses.dataclass(frozen=True, slots=True)
class LabelAlignment:
    """Where each member's classes stand among the classes of the ensemble.

    Attributes:
        labels: all classes, in the order of their first appearance over the members.
        positions: for each member [C_m], the place in ``labels`` of each of its classes.
    """

    labels: tuple[str, ...]
    positions: tuple[npt.NDArray[np.intp], ...]

    @classmethod
    def of(cls, members: Sequence[Sequence[str]]) -> Self:
        """Aligns the members' labels, each in index order.

        Raises:
            FailedPrecondition: a label is empty or twice in one member, or two members write one
                label in upper and lower case and no member knows both as classes.
        """
        names = [[canonical(label) for label in member] for member in members]
        place: dict[str, int] = {}
        for number, member in enumerate(names):
            if not member or "" in member:
                raise FailedPrecondition(f"member {number} has no labels, or an empty one")
            if len(set(member)) < len(member):
                twice = next(label for label in member if member.count(label) > 1)
                raise FailedPrecondition(f"member {number} has the label {twice!r} twice")
            for label in member:
                place.setdefault(label, len(place))
        _refuse_other_cases(names, place)
        return cls(
            tuple(place),
            tuple(np.array([place[label] for label in member], np.intp) for member in names),
        )

    def is_complete(self, member: int) -> bool:
        """Whether the member knows every label."""
        return len(self.positions[member]) == len(self.labels)

    def spread(self, member: int, scores: Tensor, fill: float) -> Tensor:
        """The member's scores [..., C_m] in the ensemble's order [..., C], ``fill`` elsewhere.

        Raises:
            Internal: the last dimension is not the member's number of labels.
        """
        positions = self.positions[member]
        if scores.ndim == 0 or scores.shape[-1] != len(positions):
            shape = list(scores.shape)
            raise Internal(
                f"member {member} has {len(positions)} labels but answered with shape {shape}"
            )
        if self.is_complete(member) and np.array_equal(positions, np.arange(len(positions))):
            return scores
        spread = np.full((*scores.shape[:-1], len(self.labels)), fill, scores.dtype)
        spread[..., positions] = scores
        return spread

    def classes(self, member: int, ids: Tensor) -> npt.NDArray[np.intp]:
        """A detector's class ids, of any numeric dtype and shape, as places in ``labels``.

        Raises:
            Internal: an id is no index of the member's labels.
        """
        positions = self.positions[member]
        whole = np.asarray(ids)
        if not bool(np.all((whole >= 0) & (whole < len(positions)) & (whole == np.floor(whole)))):
            raise Internal(f"member {member} gave a class id that its labels do not have")
        return positions[whole.astype(np.intp)]


def _refuse_other_cases(names: Sequence[Sequence[str]], place: dict[str, int]) -> None:
    """One class under two spellings would silently become two classes."""
    spellings: dict[str, set[str]] = {}
    for label in place:
        spellings.setdefault(label.casefold(), set()).add(label)
    for variants in spellings.values():
        if len(variants) > 1 and not any(variants <= set(member) for member in names):
            listed = " and ".join(repr(label) for label in sorted(variants))
            raise FailedPrecondition(
                f"the members write one label as {listed}; give them the same labels"
            )
