"""One member's outputs as if another had given them: names, labels' order and dtype alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.fitting import agree, describe, intersection, joined_inputs, rows_at_most
from crossfade.ensemble.labels import order_of
from crossfade.ensemble.members import Known
from crossfade.ensemble.plan import Face
from crossfade.ensemble.scores import Quantization, dequantize
from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.core.model import Signature, Tensor, Tensors, TensorSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What is done to one output.

    Attributes:
        order: [C] for each class of the answer its place in the member's; ``None`` keeps it.
        real: whether stored integers are made real numbers.
    """

    order: npt.NDArray[np.intp] | None = None
    real: bool = False
    quantization: Quantization | None = None

    def __call__(self, array: Tensor) -> Tensor:
        """The output as the first member would give it."""
        if self.real:
            array = dequantize(array, self.quantization)
        return array if self.order is None else array[..., self.order]


@dataclasses.dataclass(frozen=True, slots=True)
class Alike:
    """Members of which each answers alone, in the first one's place.

    Attributes:
        face: of all; labels stand in the first one's order.
        changes: for each member, by output; outputs that stay as they are do not stand there.
    """

    face: Face
    changes: tuple[Mapping[str, Change], ...]

    @classmethod
    def of(cls, members: Sequence[Known]) -> Self:
        """Compares the members with the first of them.

        Outputs that one of them lacks are not given.

        Raises:
            FailedPrecondition: no output is common to all, or labels or dtypes do not fit.
        """
        first = members[0]
        outputs: list[TensorSpec] = []
        changes: list[dict[str, Change]] = [{} for _ in members]
        for spec in first.signature.outputs:
            found = [one for member in members if (one := member.output(spec.name)) is not None]
            if len(found) < len(members):
                continue
            joined = spec
            for member, other, change in zip(members, found, changes, strict=True):
                made = _change(first, member, spec, other)
                if made is not None:
                    change[spec.name] = made
                if not agree(joined.shape, other.shape):
                    raise FailedPrecondition(
                        f"output '{spec.name}' is {describe(joined)} for '{first.name}' and"
                        f" {describe(other)} for '{member.name}'"
                    )
                shape = intersection(joined.shape, other.shape)
                joined = dataclasses.replace(joined, shape=shape)
            if any(change.get(spec.name, Change()).real for change in changes):
                joined = dataclasses.replace(joined, dtype="FP32")
                for member, change in zip(members, changes, strict=True):
                    before = change.get(spec.name, Change())
                    change[spec.name] = dataclasses.replace(
                        before, real=True, quantization=member.quantization.get(spec.name)
                    )
            outputs.append(joined)
        if not outputs:
            had = "; ".join(
                f"'{m.name}' has {sorted(spec.name for spec in m.signature.outputs)}"
                for m in members
            )
            raise FailedPrecondition(
                f"the members have no output of one name: {had}; map them with outputs"
            )
        batched = all(member.signature.batched for member in members)
        names = {spec.name for spec in outputs}
        face = Face(
            Signature(joined_inputs(members), tuple(outputs), batched, first.signature.method),
            {name: labels for name, labels in first.labels.items() if name in names},
            rows_at_most(members) if batched else 0,
        )
        return cls(face, tuple(changes))

    def outputs(self, number: int, outputs: Tensors) -> Tensors:
        """What member ``number`` gave, as the first one would have."""
        changes = self.changes[number]
        if not changes:
            return outputs
        return {
            name: changes[name](array) if name in changes else array
            for name, array in outputs.items()
        }


def _change(first: Known, member: Known, spec: TensorSpec, other: TensorSpec) -> Change | None:
    name = spec.name
    order = _order(first, member, name)
    scales = [m.quantization.get(name) for m in (first, member)]
    if spec.dtype == other.dtype and scales[0] == scales[1]:
        return None if order is None else Change(order)
    stored = [
        s.dtype == "FP32" or scale is not None
        for s, scale in zip((spec, other), scales, strict=True)
    ]
    if not all(stored):
        raise FailedPrecondition(
            f"output '{name}' is {spec.dtype} for '{first.name}' and {other.dtype} for"
            f" '{member.name}'"
        )
    return Change(order, True, scales[1])


def _order(first: Known, member: Known, name: str) -> npt.NDArray[np.intp] | None:
    wanted, given = (one.labels.get(name, ()) for one in (first, member))
    if bool(wanted) != bool(given):
        without = member if wanted else first
        raise FailedPrecondition(
            f"member '{without.name}' has no labels for '{name}', and others have: add labels.txt"
            " to its model"
        )
    try:
        return order_of(wanted, given)
    except FailedPrecondition as error:
        raise FailedPrecondition(
            f"'{first.name}' and '{member.name}' have different labels for '{name}':"
            f" {error.message}"
        ) from None
