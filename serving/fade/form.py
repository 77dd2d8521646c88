"""Whether one member can stand in for another, and how: names, dtypes, labels.

Clients know the primary's form. A request of that form is made into the member's, and the
member's answer into that form, so that nobody notices who answered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from crossfade.ensemble.labels import LabelAlignment
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Signature,
    Tensor,
    TensorSpec,
)

_FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})


@dataclasses.dataclass(frozen=True, slots=True)
class _Output:
    """How an output of the form comes about.

    Attributes:
        name: the member's.
        order: the member's class of each class of the form; ``None`` where they are the same.
        dtype: to be made; ``None`` where it is the same.
    """

    name: str
    order: npt.NDArray[np.intp] | None = None
    dtype: np.dtype[Any] | None = None

    def make(self, array: Tensor) -> Tensor:
        if self.order is not None:
            array = array[..., self.order]
        return array if self.dtype is None else array.astype(self.dtype)


@dataclasses.dataclass(frozen=True, slots=True)
class _Mapped:
    """One signature of the form at the member.

    Attributes:
        inputs: the member's name of each input; absent ones the member does not need.
        dtypes: of inputs that have another form at one of the two, in which the member is not
            asked.
        differences: what has to be made, in words.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, _Output]
    batched: bool
    dtypes: Mapping[str, np.dtype[Any]]
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing has to be made."""
        return not self.differences


class Adapter:
    """Makes requests and answers of ``form`` into those of a member and back. Thread-safe.

    Args:
        form: what clients see.
        member: whose requests and answers are made.

    Attributes:
        differences: what clients would notice if they asked the member itself, in words.
        unread: forms of a request that the form has, and the member does not read, in words.

    Raises:
        FailedPrecondition: the member cannot stand in, with all reasons.
    """

    def __init__(self, form: ModelMetadata, member: ModelMetadata) -> None:
        self._max_rows = member.max_batch_size
        self.metadata = dataclasses.replace(form, version=member.version, platform=member.platform)
        self._mapped: dict[str, _Mapped] = {}
        reasons: list[str] = []
        differences: list[str] = []
        unread: list[str] = []
        for name, signature in form.signatures.items():
            inner = name
            if name == form.default_signature and name not in member.signatures:
                inner = member.default_signature
            if inner not in member.signatures:
                reasons.append(f"it has no signature '{name}'")
                continue
            found = _Fitting(form, member, signature, member.signatures[inner])
            self._mapped[name] = found.mapped(name, inner)
            reasons += found.reasons
            differences += self._mapped[name].differences
            unread += found.unread
        if reasons:
            raise FailedPrecondition(
                f"'{member.name}' version {member.version} cannot answer what is asked of "
                f"'{form.name}': {'; '.join(reasons)}"
            )
        if 0 < self._max_rows < form.max_batch_size:
            unread.append(f"takes at most {self._max_rows} rows a request")
        self.differences = tuple(dict.fromkeys(differences))
        self.unread = tuple(dict.fromkeys(unread))

    def takes(self, request: InferRequest) -> bool:
        """Whether the member can be asked this; some forms of a request only one of them reads."""
        mapped = self._mapped[request.signature]
        if mapped.batched and request.rows > self._max_rows > 0:
            return False
        return all(
            name in request.inputs and request.inputs[name].dtype == dtype
            for name, dtype in mapped.dtypes.items()
        )

    def request(self, request: InferRequest) -> InferRequest:
        """A request as the member takes it."""
        mapped = self._mapped[request.signature]
        rows = request.rows
        if mapped.batched and request.inputs:
            rows = len(next(iter(request.inputs.values())))
        if mapped.same and rows == request.rows:
            return request
        inputs = {
            mapped.inputs[name]: array
            for name, array in request.inputs.items()
            if name in mapped.inputs
        }
        outputs = tuple(mapped.outputs[name].name for name in request.outputs)
        return dataclasses.replace(
            request, inputs=inputs, outputs=outputs, signature=mapped.name, rows=rows
        )

    def response(self, request: InferRequest, response: InferResponse) -> InferResponse:
        """The member's answer in the form of ``request``, which is the client's."""
        mapped = self._mapped[request.signature]
        outputs: Mapping[str, Tensor] = response.outputs
        if not mapped.same:
            outputs = {
                name: made.make(outputs[made.name])
                for name, made in mapped.outputs.items()
                if made.name in outputs and (not request.outputs or name in request.outputs)
            }
        return dataclasses.replace(response, outputs=outputs, model=self.metadata)


class _Fitting:
    """Compares two signatures and keeps why they do not fit."""

    def __init__(
        self, form: ModelMetadata, member: ModelMetadata, ours: Signature, theirs: Signature
    ) -> None:
        self.reasons: list[str] = []
        self.unread: list[str] = []
        self._ours = ours
        self._theirs = theirs
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._inputs = self._fit_inputs(form)
        self._outputs = self._fit_outputs(form, member)

    def mapped(self, name: str, inner: str) -> _Mapped:
        return _Mapped(
            *(inner, self._inputs, self._outputs, self._theirs.batched, self._dtypes),
            differences=tuple(self._differences(name, inner)),
        )

    def _differences(self, name: str, inner: str) -> Iterator[str]:
        if name != inner:
            yield f"its signature '{inner}' stands for '{name}'"
        for ours in (spec.name for spec in self._ours.inputs):
            theirs = self._inputs.get(ours)
            if theirs is None:
                yield f"it has no input '{ours}'"
            elif theirs != ours:
                yield f"its input is called '{theirs}', clients send '{ours}'"
        for spec in self._ours.outputs:
            if (made := self._outputs.get(spec.name)) is None:
                continue  # a reason to refuse already
            if made.name != spec.name:
                yield f"its output is called '{made.name}', clients expect '{spec.name}'"
            if made.order is not None:
                yield f"the labels of its output '{made.name}' have another order"
            if made.dtype is not None:
                yield f"its output '{made.name}' has another type, clients expect {spec.dtype}"
        known = [made.name for made in self._outputs.values()]
        if more := [f"'{o.name}'" for o in self._theirs.outputs if o.name not in known]:
            yield f"it has more outputs: {', '.join(more)}"
        elif known != [spec.name for spec in self._theirs.outputs]:
            yield "its outputs have another order"

    def _fit_inputs(self, form: ModelMetadata) -> dict[str, str]:
        pairs = _pairs(self._ours.inputs, self._theirs.inputs)
        for spec in self._theirs.inputs:
            given = [ours for ours, theirs in pairs if theirs is spec]
            if not spec.optional and not (given and not given[0].optional):
                self.reasons.append(f"it needs the input '{spec.name}', which clients do not send")
        if not pairs and self._ours.inputs:
            self.reasons.append("it has none of the inputs")
        for ours, theirs in pairs:
            if ours.dtype != theirs.dtype:
                self.reasons.append(
                    f"its input '{theirs.name}' is {theirs.dtype}, clients send {ours.dtype}"
                )
            elif not _takes_shape(ours.shape, theirs.shape):
                self.reasons.append(
                    f"its input '{theirs.name}' has the shape {_shown(theirs.shape)}, clients send "
                    f"{_shown(ours.shape)}"
                )
            elif ours.cells and not theirs.cells:
                self.reasons.append(f"its input '{theirs.name}' takes no cells of a table as text")
            if ours.alternative is not None and ours.alternative != theirs.alternative:
                self._dtypes[ours.name] = np.dtype(NUMPY[ours.dtype])
                other = ours.alternative
                self.unread.append(
                    f"does not read the tensor '{other.name}' ({other.dtype}, "
                    f"{_shown(other.shape)}) that '{form.name}' also takes"
                )
        return {ours.name: theirs.name for ours, theirs in pairs}

    def _fit_outputs(self, form: ModelMetadata, member: ModelMetadata) -> dict[str, _Output]:
        pairs = _pairs(self._ours.outputs, self._theirs.outputs)
        found = {ours.name for ours, _ in pairs}
        self.reasons += [
            f"it has no output '{spec.name}'"
            for spec in self._ours.outputs
            if spec.name not in found
        ]
        orders = {ours.name: self._order(form, member, ours, theirs) for ours, theirs in pairs}
        sizes = {len(order) for order in orders.values() if order is not None}
        made: dict[str, _Output] = {}
        for ours, theirs in pairs:
            dtype = None
            if ours.dtype != theirs.dtype:
                if {ours.dtype, theirs.dtype} <= _FLOATS:
                    dtype = np.dtype(NUMPY[ours.dtype])
                else:
                    self.reasons.append(
                        f"its output '{theirs.name}' is {theirs.dtype}, clients expect {ours.dtype}"
                    )
            if not _same_classes(ours.shape, theirs.shape):
                self.reasons.append(
                    f"its output '{theirs.name}' has the shape {_shown(theirs.shape)}, clients "
                    f"expect {_shown(ours.shape)}"
                )
            order = orders[ours.name]
            # The names of the classes beside their scores go with them.
            if theirs.dtype == "BYTES" and theirs.shape and theirs.shape[-1] in sizes:
                order = next(o for o in orders.values() if o is not None)
            made[ours.name] = _Output(theirs.name, order, dtype)
        return made

    def _order(
        self, form: ModelMetadata, member: ModelMetadata, ours: TensorSpec, theirs: TensorSpec
    ) -> npt.NDArray[np.intp] | None:
        """The member's index of each class of the form; ``None`` if they are the same."""
        mine, other = form.labels.get(ours.name), member.labels.get(theirs.name)
        if mine is None and other is None:
            return None
        if mine is None or other is None:
            lacks = "it" if other is None else f"'{form.name}'"
            self.reasons.append(
                f"{lacks} has no labels for the output '{ours.name}', so that the classes cannot "
                "be aligned: add a labels.txt"
            )
            return None
        try:
            alignment = LabelAlignment.of((mine, other))
        except CrossfadeError as error:
            self.reasons.append(error.message)
            return None
        if not (alignment.is_complete(0) and alignment.is_complete(1)):
            differ = sorted(set(mine) ^ set(other))[:8]
            self.reasons.append(
                f"only one of the two knows the labels {', '.join(map(repr, differ))}"
            )
            return None
        order = np.argsort(alignment.positions[1])
        return None if np.array_equal(order, np.arange(len(order))) else order


def _pairs(
    ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]
) -> list[tuple[TensorSpec, TensorSpec]]:
    """Tensors of one name; two that stand alone are the same whatever their names are."""
    if len(ours) == 1 and len(theirs) == 1:
        return [(ours[0], theirs[0])]
    named = {spec.name: spec for spec in theirs}
    return [(spec, named[spec.name]) for spec in ours if spec.name in named]


def _takes_shape(ours: tuple[int, ...] | None, theirs: tuple[int, ...] | None) -> bool:
    if theirs is None or ours is None:
        return theirs is None
    return len(ours) == len(theirs) and all(b in (-1, a) for a, b in zip(ours, theirs, strict=True))


def _same_classes(ours: tuple[int, ...] | None, theirs: tuple[int, ...] | None) -> bool:
    """Whether two outputs' shapes may be the same, apart from the first dimension."""
    if ours is None or theirs is None:
        return True
    return len(ours) == len(theirs) and all(
        a == b or -1 in (a, b) for a, b in zip(ours[1:], theirs[1:], strict=True)
    )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "of any rank" if shape is None else str(list(shape))
