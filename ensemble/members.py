"""A member of an ensemble: which model it is, under which names, and what is known of it now."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from crossfade.ensemble.scores import Quantization
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    Lease,
    ModelMetadata,
    ModelRef,
    Signature,
    TensorSpec,
)


class Live(Protocol):
    """A ``Resolver`` that also says what is known of a model without keeping it alive."""

    def lease(self, ref: ModelRef, deadline_s: float | None = None) -> Lease:
        """See ``Resolver.lease``; waits at most until ``deadline_s`` (``time.monotonic()``)."""
        ...

    def metadata(self, ref: ModelRef) -> ModelMetadata:
        """Of the version that ``ref`` means now; raises as ``lease`` does."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One part of an ensemble.

    Attributes:
        name: in answers, metrics and reports; no two members of an ensemble share it.
        signature: of the model; ``None`` is its default one.
        inputs, outputs: the model's names to the ensemble's; what is left out keeps its name.
    """

    name: str
    ref: ModelRef
    signature: str | None = None
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Contract:
    """What an ensemble counts on in a member's model; another version of it may have the same."""

    signatures: Mapping[str, Signature]
    labels: Mapping[str, tuple[str, ...]]
    max_batch_size: int
    quantization: Mapping[str, tuple[float, int]]
    headers: tuple[str, ...]

    @classmethod
    def of(cls, metadata: ModelMetadata) -> Self:
        """Reads it off a model."""
        return cls(
            dict(metadata.signatures),
            {name: tuple(labels) for name, labels in metadata.labels.items()},
            metadata.max_batch_size,
            dict(metadata.quantization),
            metadata.headers,
        )


class Known:
    """A member as its model is now, with the names of the ensemble. Immutable.

    Attributes:
        signature: of the model; names are the ensemble's, and one may stand there twice.
        labels: by the ensemble's name of an output.
        quantization: the same.
        contract: of the model.

    Raises:
        FailedPrecondition: the model has no such signature, or not the names that are mapped.
    """

    def __init__(self, member: Member, metadata: ModelMetadata) -> None:
        self.member = member
        self.name = member.name
        self.metadata = metadata
        self.contract = Contract.of(metadata)
        self._called = member.signature or metadata.default_signature
        found = metadata.signatures.get(self._called)
        if found is None:
            raise FailedPrecondition(
                f"member '{self.name}': its model has no signature '{self._called}', but"
                f" {sorted(metadata.signatures)}"
            )
        forms = [*found.inputs, *(s.alternative for s in found.inputs if s.alternative)]
        _check_names(self.name, "input", member.inputs, forms)
        _check_names(self.name, "output", member.outputs, found.outputs)
        self._inputs = {s.name: member.inputs.get(s.name, s.name) for s in forms}
        theirs = {s.name: member.outputs.get(s.name, s.name) for s in found.outputs}
        self._outputs = theirs
        self._own = {name: own for own, name in theirs.items()}
        if len(self._own) < len(theirs):
            raise FailedPrecondition(f"member '{self.name}': two outputs have one name")
        self.signature = dataclasses.replace(
            found,
            inputs=tuple(_renamed(spec, self._inputs) for spec in found.inputs),
            outputs=tuple(_renamed(spec, theirs) for spec in found.outputs),
        )
        self.labels = {
            theirs[n]: labels for n, labels in self.contract.labels.items() if n in theirs
        }
        self.quantization = {
            theirs[n]: Quantization(*stored)
            for n, stored in metadata.quantization.items()
            if n in theirs
        }

    @property
    def max_rows(self) -> int:
        """Rows that a request may have; 0 where there is no batch."""
        return self.metadata.max_batch_size if self.signature.batched else 0

    def output(self, name: str) -> TensorSpec | None:
        """The output that the ensemble calls so."""
        return next((spec for spec in self.signature.outputs if spec.name == name), None)

    def to_member(self, request: InferRequest) -> InferRequest:
        """The request as the model takes it; ``outputs`` must be names that it has."""
        given = request.inputs
        return InferRequest(
            {own: given[name] for own, name in self._inputs.items() if name in given},
            self._called,
            tuple(self._own[name] for name in request.outputs),
            request.deadline_s,
            request.priority,
            request.id,
            request.parameters,
            request.cancelled,
            request.rows,
            request.trace,
        )

    def from_member(self, response: InferResponse) -> InferResponse:
        """The answer with the ensemble's names."""
        theirs = self._outputs
        outputs = {theirs[own]: array for own, array in response.outputs.items()}
        return InferResponse(
            outputs, response.model, response.timings, response.parameters, response.final
        )


Look = Known | CrossfadeError  # a member, or why it is not there


def look(member: Member, live: Live) -> Look:
    """What is known of a member now."""
    try:
        return Known(member, live.metadata(member.ref))
    except CrossfadeError as error:
        return error


def _renamed(spec: TensorSpec, names: Mapping[str, str]) -> TensorSpec:
    other = spec.alternative
    if other is not None:
        other = dataclasses.replace(other, name=names[other.name])
    return dataclasses.replace(spec, name=names[spec.name], alternative=other)


def _check_names(
    member: str, kind: str, mapped: Mapping[str, str], specs: Sequence[TensorSpec]
) -> None:
    names = {spec.name for spec in specs}
    unknown = sorted(mapped.keys() - names)
    if unknown:
        raise FailedPrecondition(
            f"member '{member}': its model has no {kind} '{unknown[0]}', but {sorted(names)};"
            f" {kind}s maps the model's names to the ensemble's"
        )
