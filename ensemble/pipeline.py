"""``pipeline``: a graph of steps; tensors that one gives, others take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from crossfade.ensemble.fitting import agree, describe, joined, present, rows_at_most
from crossfade.ensemble.members import Known, Look
from crossfade.ensemble.plan import Answer, Face, Plan, Result
from crossfade.ensemble.team import Team
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition, InvalidArgument
from crossfade.runtimes.core.model import InferRequest, Signature, Tensor, Tensors, TensorSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Pipeline:
    """The kind; its members are the steps.

    A step gives the tensors that its ``Member.outputs`` map, or else all under their own names.

    Attributes:
        outputs: tensors that are the answer; none are those that no step takes.
    """

    outputs: tuple[str, ...] = ()

    def __call__(self, members: Sequence[tuple[str, Look]]) -> Plan:
        """See ``Kind``."""
        known = present(members)
        gives = [_gives(step) for step in known]
        source: dict[str, int] = {}
        for number, given in enumerate(gives):
            for name in given:
                if name in source:
                    both = f"'{known[source[name]].name}' and '{known[number].name}'"
                    raise FailedPrecondition(f"steps {both} both give the tensor '{name}'")
                source[name] = number
        outside: list[tuple[TensorSpec, str]] = []
        for step in known:
            for spec in step.signature.inputs:
                if spec.name in source:
                    _check_edge(known[source[spec.name]], step, spec)
                else:
                    outside.append((spec, step.name))
        waves = _waves(known, source)
        taken = {spec.name for step in known for spec in step.signature.inputs}
        names = self.outputs or tuple(name for name in source if name not in taken)
        unknown = [name for name in names if name not in source]
        if unknown or not names:
            raise FailedPrecondition(
                f"no step gives the tensor '{unknown[0]}'; they give {sorted(source)}"
                if unknown
                else "every tensor is taken by a step, so that there is no output; name outputs"
            )
        batched = all(step.signature.batched for step in known)
        face = Face(
            Signature(joined(outside), tuple(gives[source[n]][n] for n in names), batched),
            {n: known[source[n]].labels[n] for n in names if n in known[source[n]].labels},
            rows_at_most(known) if batched else 0,
        )
        wanted = taken | set(names)
        steps = tuple(
            _Step(step, tuple(n for n in given if n in wanted), _unsure(step, source, gives))
            for step, given in zip(known, gives, strict=True)
        )
        return _Plan(face, steps, waves)


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """One step at work.

    Attributes:
        gives: tensors that others take, or that are the answer.
        unsure: inputs whose tensors need not have the shape that the step takes.
    """

    known: Known
    gives: tuple[str, ...]
    unsure: tuple[TensorSpec, ...]

    def request(self, request: InferRequest, tensors: Tensors) -> InferRequest:
        """What the step is asked.

        Raises:
            InvalidArgument: a tensor has not the shape that the step takes.
        """
        specs = self.known.signature.inputs
        inputs = {name: tensors[name] for spec in specs for name in _forms(spec) if name in tensors}
        for spec in self.unsure:
            if spec.name in inputs:
                self._check(spec, inputs[spec.name])
        return InferRequest(
            inputs,
            request.signature,
            self.gives,
            request.deadline_s,
            request.priority,
            request.id,
            request.parameters,
            request.cancelled,
            self._rows(inputs),
            request.trace,
        )

    def _check(self, spec: TensorSpec, array: Tensor) -> None:
        if not agree(array.shape, spec.shape):
            raise InvalidArgument(
                f"tensor '{spec.name}' has shape {list(array.shape)}, but step"
                f" '{self.known.name}' takes {describe(spec)}"
            )

    def _rows(self, inputs: Tensors) -> int:
        most = self.known.max_rows
        if not most:
            return 1
        found = {array.shape[0] for array in inputs.values()}
        rows = max(found, default=1)
        if len(found) > 1 or not 1 <= rows <= most:
            raise InvalidArgument(
                f"step '{self.known.name}' takes one batch of 1 to {most} rows, not {sorted(found)}"
            )
        return rows


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    face: Face
    steps: tuple[_Step, ...]
    waves: tuple[tuple[int, ...], ...]  # steps that run side by side

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """See ``Plan``."""
        tensors = [dict(request.inputs) for request in requests]
        said: list[dict[str, object]] = [{} for _ in requests]
        failed: dict[int, CrossfadeError] = {}
        for wave in self.waves:
            asked: list[list[int]] = []
            jobs: list[tuple[int, list[InferRequest]]] = []
            for number in wave:
                job: list[InferRequest] = []
                rows: list[int] = []
                for n, request in enumerate(requests):
                    if n in failed:
                        continue
                    try:
                        job.append(self.steps[number].request(request, tensors[n]))
                        rows.append(n)
                    except CrossfadeError as error:
                        failed[n] = error
                if job:
                    jobs.append((number, job))
                    asked.append(rows)
            for rows, answers in zip(asked, team.ask_all(jobs), strict=True):
                assert answers is not None  # there is no time after which they are not waited for
                for n, answer in zip(rows, answers, strict=True):
                    if isinstance(answer, CrossfadeError):
                        failed.setdefault(n, answer)
                    else:
                        tensors[n].update(answer.outputs)
                        said[n].update(answer.parameters)
        return [failed.get(n) or Answer(tensors[n], said[n]) for n in range(len(requests))]


def _gives(step: Known) -> Mapping[str, TensorSpec]:
    mapped = set(step.member.outputs.values())
    return {spec.name: spec for spec in step.signature.outputs if not mapped or spec.name in mapped}


def _forms(spec: TensorSpec) -> tuple[str, ...]:
    other = spec.alternative
    return (spec.name,) if other is None or other.name == spec.name else (spec.name, other.name)


def _taken(given: TensorSpec, spec: TensorSpec) -> TensorSpec | None:
    """The form of an input that takes the tensor; ``None`` where none does."""
    forms = [spec] if spec.alternative is None else [spec, spec.alternative]
    fitting = (f for f in forms if f.dtype == given.dtype and f.name == given.name)
    return next((form for form in fitting if agree(given.shape, form.shape)), None)


def _check_edge(source: Known, step: Known, spec: TensorSpec) -> None:
    given = source.output(spec.name)
    assert given is not None
    if _taken(given, spec) is None:
        raise FailedPrecondition(
            f"step '{source.name}' gives '{spec.name}' as {describe(given)}, but step"
            f" '{step.name}' takes {describe(spec)}"
        )


def _unsure(
    step: Known, source: Mapping[str, int], gives: Sequence[Mapping[str, TensorSpec]]
) -> tuple[TensorSpec, ...]:
    found = []
    for spec in step.signature.inputs:
        if spec.name in source:
            given = gives[source[spec.name]][spec.name]
            form = _taken(given, spec)
            if form is not None and not _sure(given.shape, form.shape):
                found.append(form)
    return tuple(found)


def _sure(given: tuple[int, ...] | None, taken: tuple[int, ...] | None) -> bool:
    """Whether a tensor of the one shape always has the other."""
    if taken is None:
        return True
    return given is not None and all(t in (-1, g) for g, t in zip(given, taken, strict=True))


def _waves(known: Sequence[Known], source: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    needs = {
        number: {source[s.name] for s in step.signature.inputs if s.name in source}
        for number, step in enumerate(known)
    }
    waves: list[tuple[int, ...]] = []
    while needs:
        ready = tuple(number for number, others in needs.items() if not others & needs.keys())
        if not ready:
            names = ", ".join(f"'{known[number].name}'" for number in needs)
            raise FailedPrecondition(f"steps wait for each other's tensors in a circle: {names}")
        waves.append(ready)
        for number in ready:
            del needs[number]
    return tuple(waves)
