"""``cascade`` as a kind: what its stages' scores are, and how clients see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from crossfade.ensemble.cascade import Cascade, Deferrals, Gate, Stage
from crossfade.ensemble.combine import MemberScores
from crossfade.ensemble.fitting import agree, intersection, joined_inputs, present, rows_at_most
from crossfade.ensemble.measures import Measure
from crossfade.ensemble.members import Known, Look
from crossfade.ensemble.plan import Face, Result
from crossfade.ensemble.scores import ScoreKind
from crossfade.ensemble.team import Team
from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.core.model import InferRequest, Signature, TensorSpec


@dataclasses.dataclass(frozen=True, slots=True)
class StageScores:
    """What is declared of one stage's scores.

    Attributes:
        labels: count instead of the model's own.
    """

    kind: ScoreKind
    temperature: float = 1.0
    labels: tuple[str, ...] = ()


class CascadeKind:
    """The kind; its counts outlive its plans. Thread-safe.

    Args:
        name: of the ensemble.
        stages: the cheapest first.
        scores: one for each stage.
        gate: what decides.
        output: with the scores; ``None`` is the one numeric output with labels that all have.
        stage_output: see ``Cascade``.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[Stage],
        scores: Sequence[StageScores],
        gate: Gate,
        *,
        output: str | None = None,
        stage_output: str | None = None,
    ) -> None:
        self._stages = stages
        self._scores = scores
        self._gate = gate
        self._output = output
        self._stage_output = stage_output
        self._deferrals = Deferrals(name, stages)

    def __call__(self, members: Sequence[tuple[str, Look]]) -> CascadePlan:
        """See ``Kind``."""
        known = present(members)
        batched = all(member.signature.batched for member in known)
        output = self._output or self._only_scores(known)
        others = [spec for spec in _common(known) if spec.name != output]
        others_names = [spec.name for spec in others]
        cascade = Cascade(
            self._stages,
            [self._scores_of(m, s, output) for m, s in zip(known, self._scores, strict=True)],
            output,
            others_names,
            stage_output=self._stage_output,
            batched=batched,
            gate=self._gate,
            deferrals=self._deferrals,
        )
        specs = [_scores_spec(known, output, len(cascade.labels)), *others]
        if self._stage_output is not None:
            if any(spec.name == self._stage_output for spec in specs):
                raise FailedPrecondition(
                    f"stage_output: the stages have an output '{self._stage_output}'"
                )
            specs.append(TensorSpec(self._stage_output, "INT32", (-1 if batched else 1,)))
        face = Face(
            Signature(joined_inputs(known), tuple(specs), batched),
            {n: known[0].labels[n] for n in others_names if n in known[0].labels}
            | {output: cascade.labels},
            rows_at_most(known) if batched else 0,
        )
        return CascadePlan(face, cascade)

    def measures(self) -> Iterable[Measure]:
        """See ``Measuring``."""
        return self._deferrals.measures()

    def _only_scores(self, known: Sequence[Known]) -> str:
        """The one output that all stages have, with labels."""
        names = [
            spec.name
            for spec in known[0].signature.outputs
            if all(
                (found := member.output(spec.name)) is not None
                and found.dtype != "BYTES"
                and bool(declared.labels or spec.name in member.labels)
                for member, declared in zip(known, self._scores, strict=True)
            )
        ]
        if len(names) == 1:
            return names[0]
        raise FailedPrecondition(
            "which output has the class scores is not known: "
            + (
                f"it could be {', '.join(names)}; "
                if names
                else "no output of all stages has labels; "
            )
            + "set output, and give the models labels.txt or the stages labels"
        )

    @staticmethod
    def _scores_of(member: Known, declared: StageScores, output: str) -> MemberScores:
        labels = declared.labels or member.labels.get(output, ())
        if member.output(output) is None or not labels:
            raise FailedPrecondition(
                f"stage '{member.name}' has no output '{output}' with labels: add labels.txt to its"
                " model, or labels to the stage"
            )
        return MemberScores(
            declared.kind, labels, member.quantization.get(output), declared.temperature
        )


@dataclasses.dataclass(frozen=True, slots=True)
class CascadePlan:
    """See ``Plan``."""

    face: Face
    cascade: Cascade

    def infer(self, requests: Sequence[InferRequest], team: Team) -> Sequence[Result]:
        """See ``Plan``."""
        return self.cascade.infer(requests, team.ask)


def _common(known: Sequence[Known]) -> list[TensorSpec]:
    """Outputs that all stages have alike, in the first one's order."""
    found: list[TensorSpec] = []
    for first in known[0].signature.outputs:
        joined = first
        for member in known:
            spec = member.output(first.name)
            if spec is None or spec.dtype != joined.dtype or not agree(joined.shape, spec.shape):
                break
            if not _means_same(known[0], member, first.name):
                break
            joined = dataclasses.replace(joined, shape=intersection(joined.shape, spec.shape))
        else:
            found.append(joined)
    return found


def _means_same(one: Known, other: Known, name: str) -> bool:
    labels = [member.labels.get(name) for member in (one, other)]
    stored = [member.quantization.get(name) for member in (one, other)]
    return labels[0] == labels[1] and stored[0] == stored[1]


def _scores_spec(known: Sequence[Known], output: str, classes: int) -> TensorSpec:
    shape: tuple[int, ...] | None = None
    for member in known:
        spec = member.output(output)
        assert spec is not None
        if not spec.shape:
            raise FailedPrecondition(
                f"the rank of output '{output}' of stage '{member.name}' is not known, or 0"
            )
        leading = (*spec.shape[:-1], classes)
        if shape is not None and not agree(shape, leading):
            raise FailedPrecondition(
                f"output '{output}' of stage '{member.name}' has the shape {list(spec.shape)},"
                f" where the stages before have {list(shape)} (but for the classes)"
            )
        shape = leading if shape is None else intersection(shape, leading)
    return TensorSpec(output, "FP32", shape)
