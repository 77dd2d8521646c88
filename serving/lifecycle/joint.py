"""A fused graph in the place of several members: run once, each member's answer made of its part.

What is around a member (pictures in, a task's answer out) stays the member's own: it is put around
a Model that takes the member's part of the fused run in place of a run of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from crossfade.ensemble.members import Member
from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferRequest,
    InferResponse,
    InferResult,
    Model,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.lifecycle.origin import Origin
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.metrics.statistics import Statistics


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One member, as far as it is a part of a fused graph.

    Attributes:
        model: the version that it was made of.
        config: of that version.
        keys: by the name of an input that clients see its name in the ensemble; members that have
            one of a name are fed the same.
        inputs: the session's names to the fused graph's.
        wanted: outputs of the session that the ensemble may ask for.
        signature: of the session.
    """

    name: str
    model: Model
    origin: Origin
    config: ModelConfig
    statistics: Statistics
    keys: Mapping[str, str]
    inputs: Mapping[str, str]
    wanted: tuple[str, ...]
    signature: Signature


def part_of(member: Member, served: Served, outputs: frozenset[str]) -> Part:
    """Looks at a member.

    Args:
        member: as the ensemble names it.
        served: its version.
        outputs: that the ensemble gives.

    Raises:
        FailedPrecondition: it can be no part of a fused graph, and why.
    """
    origin, config = served.origin, served.config

    def refuse(why: str) -> FailedPrecondition:
        return FailedPrecondition(f"member '{member.name}' {why}")

    if origin is None:
        raise refuse("has no graph of its own")
    if registry.fuser(origin.platform) is None:
        raise refuse(f"is of the platform {origin.platform}, whose graphs are not fused")
    if served.worker is not None:
        raise refuse("runs in a worker process")
    if config.cache is not None:
        raise refuse("has a response cache of its own")
    if config.sequence is not None or config.table is not None:
        raise refuse("has a sequence or a table")
    if any(tensor.reshape is not None for tensor in (*config.inputs, *config.outputs)):
        raise refuse("declares other shapes than its graph has")
    called = member.signature or served.default_signature
    seen = served.metadata.signatures[called]
    signature = origin.leaf.metadata.signatures.get(called)
    if signature is None or called != DEFAULT_SIGNATURE:
        raise refuse(f"is asked for its signature '{called}'")
    keyed = config.preprocess.key if config.preprocess is not None else None
    specs = [spec for spec in seen.inputs if spec.name != keyed]
    keys = {spec.name: member.inputs.get(spec.name, spec.name) for spec in specs}
    own = [spec.name for spec in signature.outputs]
    if origin.around is None:
        own = [name for name in own if member.outputs.get(name, name) in outputs]
    return Part(
        member.name,
        served.model,
        origin,
        config,
        served.statistics,
        keys,
        {(spec.alternative or spec).name: keys[spec.name] for spec in specs},
        tuple(own),
        signature,
    )


def check_alike(parts: Sequence[Part]) -> None:
    """Raises FailedPrecondition where parts are not fed the same, or not run alike."""
    first = parts[0]
    for other in parts[1:]:
        both = f"members '{first.name}' and '{other.name}'"
        if first.origin.platform != other.origin.platform:
            raise FailedPrecondition(f"{both} are of different platforms")
        if first.config.preprocess != other.config.preprocess:
            raise FailedPrecondition(f"{both} are preprocessed differently")
        if first.config.options != other.config.options:
            raise FailedPrecondition(f"{both} have different options")
        if first.config.max_batch_size != other.config.max_batch_size:
            raise FailedPrecondition(f"{both} have different batch sizes")


@dataclasses.dataclass(frozen=True, slots=True)
class Joint:
    """Members as one fused graph. Thread-safe.

    Attributes:
        outputs: for each part, the session's names to the fused graph's.
    """

    parts: Sequence[Part]
    outputs: Sequence[Mapping[str, str]]

    def signature(self) -> Signature:
        """Of the fused graph."""
        inputs: dict[str, TensorSpec] = {}
        for part in self.parts:
            for spec in part.signature.inputs:
                name = part.inputs[spec.name]
                inputs.setdefault(name, dataclasses.replace(spec, name=name))
        outputs = [
            dataclasses.replace(spec, name=names[spec.name])
            for part, names in zip(self.parts, self.outputs, strict=True)
            for spec in part.signature.outputs
            if spec.name in names
        ]
        batched = all(part.signature.batched for part in self.parts)
        return Signature(tuple(inputs.values()), tuple(outputs), batched)

    def answer(
        self, fused: Model, requests: Sequence[Sequence[InferRequest]]
    ) -> list[Sequence[InferResult]]:
        """What each member answers, of one run of the fused graph.

        Args:
            fused: takes requests with the fused graph's names.
            requests: for each member, with its names; the same requests otherwise.
        """
        run = _Run(fused, self)
        return [
            part.origin.processed(_Share(run, number)).infer(asked)
            for number, (part, asked) in enumerate(zip(self.parts, requests, strict=True))
        ]


class _Run:
    """One run of the fused graph, for all members of one call."""

    def __init__(self, fused: Model, joint: Joint) -> None:
        self._fused = fused
        self._joint = joint
        self._results: Sequence[InferResult] | None = None

    def share(self, number: int, requests: Sequence[InferRequest]) -> list[InferResult]:
        """One member's part of the answers; the first who asks has the graph run."""
        part, names = self._joint.parts[number], self._joint.outputs[number]
        if self._results is None:
            self._results = self._fused.infer([_joined(part, one) for one in requests])
        return [
            one if isinstance(one, CrossfadeError) else _portion(part, names, request, one)
            for request, one in zip(requests, self._results, strict=True)
        ]


class _Share:
    """A member's session, as its processing sees it."""

    def __init__(self, run: _Run, number: int) -> None:
        self._run = run
        self._number = number
        self.metadata: ModelMetadata = run._joint.parts[number].origin.leaf.metadata

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        return self._run.share(self._number, requests)

    def close(self) -> None:
        """See ``Model.close``; there is nothing to close."""


def _joined(part: Part, request: InferRequest) -> InferRequest:
    inputs = {
        part.inputs[name]: array for name, array in request.inputs.items() if name in part.inputs
    }
    return dataclasses.replace(request, inputs=inputs, signature=DEFAULT_SIGNATURE, outputs=())


def _portion(
    part: Part, names: Mapping[str, str], request: InferRequest, response: InferResponse
) -> InferResponse:
    wanted = request.outputs or part.wanted
    outputs = {name: response.outputs[names[name]] for name in wanted}
    return InferResponse(outputs, part.model.metadata, response.timings, response.parameters)
