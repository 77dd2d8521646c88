"""``ensemble`` of ``model.yaml``: models that answer together under one name.

A mapping of names is read from the member's side: its own name first, then the ensemble's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic

from crossfade.serving.config.sizes import parse_bytes

Name = Annotated[str, pydantic.Field(min_length=1, max_length=256)]
PositiveMs = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
Scores = Literal[
    "probabilities", "logits", "label_probabilities", "label_logits", "values"
]  # ScoreKind


class Section(pydantic.BaseModel):
    """Base of the sections: frozen; an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Member(Section):
    """A model in the repository, as one part of an ensemble.

    Attributes:
        version, label: which version; without either the latest.
        signature: which of its signatures; its default one.
        name: in answers, metrics and reports; the model's, by default.
        inputs, outputs: the member's names to the ensemble's; what is left out keeps its name.
    """

    model: Name
    version: Annotated[int, pydantic.Field(ge=1)] | None = None
    label: Name | None = None
    signature: Name | None = None
    name: Name | None = None
    inputs: Mapping[Name, Name] = pydantic.Field(default_factory=dict)
    outputs: Mapping[Name, Name] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _one(self) -> Member:
        if self.version is not None and self.label is not None:
            raise ValueError("give one of version, label")
        return self


class WeightedMember(Member):
    """A member whose outputs are combined with others'.

    Attributes:
        weight: its share, in any unit; the weights are divided by their sum.
        scores: what its numbers are, where that is not what the ensemble says of all.
        labels: class names in index order, where the member itself has none.
        temperature: divides its log-scores.
    """

    weight: Weight | None = None
    scores: Scores | None = None
    labels: tuple[str, ...] | None = None
    temperature: PositiveMs = 1.0


class Boxes(Section):
    """How detectors' boxes become one list.

    Attributes:
        rule: ``fuse`` makes one box of those that overlap, ``suppress`` keeps the surest.
        iou_threshold: from which overlap on; 0.55 for ``fuse``, 0.5 for ``suppress``.
        max_detections: boxes that are given at most.
    """

    rule: Literal["fuse", "suppress"] = "fuse"
    iou_threshold: Fraction | None = None
    max_detections: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 100


class Adapt(Section):
    """How weights follow feedback; see ``ensemble.adapting``.

    Attributes:
        rate: how much one truth moves them.
        window: truths that the expected log-loss is made of where a fit does not say it, and after
            which weights are looked at as good ones to go back to.
        max_step: how far a weight may move in one day (UTC).
        min_weight: no member weighs less.
        tolerance: nats by which the log-loss may be worse than expected before weights freeze.
        alpha: the chance that they ever do although it is not.
        sample_percent: of the requests whose claims are kept until their truth comes.
    """

    rate: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.02
    window: Annotated[int, pydantic.Field(ge=10, le=1_000_000)] = 500
    max_step: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.1
    min_weight: Annotated[float, pydantic.Field(ge=0.001, le=0.5)] = 0.01
    tolerance: Annotated[float, pydantic.Field(gt=0, le=10)] = 0.1
    alpha: Annotated[float, pydantic.Field(ge=1e-6, le=0.5)] = 0.01
    sample_percent: Annotated[float, pydantic.Field(gt=0, le=100)] = 100.0


class Weighted(Section):
    """All members answer, and their outputs become one.

    Attributes:
        rule: what is averaged; see ``ensemble.combine``.
        scores: what the members' numbers are.
        boxes: the members are detectors.
        member_timeout_ms: a member that takes longer is left out.
        quorum: how many members have to answer; all of them, or one if there is a timeout.
        fuse: members that share work may be answered by one graph.
        adapt: has the weights follow feedback.
    """

    kind: Literal["weighted"]
    members: Annotated[tuple[WeightedMember, ...], pydantic.Field(min_length=1, max_length=64)]
    rule: Literal["probability", "logit", "vote"] = "probability"
    scores: Scores | None = None
    boxes: Boxes | None = None
    member_timeout_ms: PositiveMs | None = None
    quorum: Annotated[int, pydantic.Field(ge=1)] | None = None
    fuse: bool = True
    adapt: Adapt | None = None

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Weighted:
        check_names(self.members)
        if (self.quorum or 1) > len(self.members):
            raise ValueError(f"quorum is {self.quorum}, but there are {len(self.members)} members")
        if len({member.weight is None for member in self.members}) > 1:
            raise ValueError("give every member a weight, or none")
        if self.members[0].weight is not None and not any(m.weight for m in self.members):
            raise ValueError("the weights are all 0")
        names = [member.name or member.model for member in self.members]
        lacking = [m.name or m.model for m in self.members if not (m.scores or self.scores)]
        if self.boxes is not None and (self.rule != "probability" or len(lacking) < len(names)):
            raise ValueError("boxes has a rule of its own, and no scores")
        if self.boxes is None and lacking:
            raise ValueError(
                f"say what the outputs of {', '.join(lacking)} are: scores: probabilities, logits,"
                " label_probabilities, label_logits or values"
            )
        if self.adapt is not None and (self.rule != "probability" or self.boxes is not None):
            raise ValueError("adapt is for class scores under the rule probability")
        if self.adapt is not None and self.adapt.min_weight * len(names) > 1:
            raise ValueError(f"min_weight is too large for {len(names)} members")
        return self


class Fallback(Section):
    """The first member answers; where it cannot, the next one does, and so on.

    Attributes:
        member_timeout_ms: a member that takes longer has failed.
    """

    kind: Literal["fallback"]
    members: Annotated[tuple[Member, ...], pydantic.Field(min_length=2, max_length=64)]
    member_timeout_ms: PositiveMs | None = None

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Fallback:
        check_names(self.members)
        return self


class Step(Member):
    """One model in a pipeline: ``inputs`` and ``outputs`` map its names to names of tensors."""


class Pipeline(Section):
    """A graph of steps: what one gives, others take.

    Attributes:
        steps: in any order; one runs when all that it takes is there.
        outputs: tensors that are the answer; by default those that no step takes.
    """

    kind: Literal["pipeline"]
    steps: Annotated[tuple[Step, ...], pydantic.Field(min_length=1, max_length=256)]
    outputs: tuple[Name, ...] = ()

    @property
    def members(self) -> tuple[Step, ...]:
        """The steps."""
        return self.steps


class SplitMember(Member):
    """A member that answers a share of the requests.

    Attributes:
        basis_points: its share in hundredths of a percent.
    """

    basis_points: Annotated[int, pydantic.Field(ge=0, le=10_000)]


class SplitKey(Section):
    """What keeps requests that belong together at one member.

    Attributes:
        header: of HTTP, or metadata of gRPC.
        parameter: of the request (Open Inference Protocol).
        input: a tensor whose first element counts.
    """

    header: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9-]{1,128}$")] | None = None
    parameter: Name | None = None
    input: Name | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> SplitKey:
        if len(self.model_fields_set) != 1:
            raise ValueError("give one of header, parameter, input")
        return self


class Split(Section):
    """One member answers each request; the first one is the primary.

    Attributes:
        key: by which the choice is sticky; without it each request is a draw of its own.
    """

    kind: Literal["split"]
    members: Annotated[tuple[SplitMember, ...], pydantic.Field(min_length=2, max_length=64)]
    key: SplitKey | None = None

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Split:
        check_names(self.members)
        total = sum(member.basis_points for member in self.members)
        if total != 10_000:
            raise ValueError(f"basis_points of all members are {total:,} together, not 10,000")
        return self


class CopyQueue(Section):
    """Copies of requests that wait for a mirror.

    Attributes:
        max_size: copies; one more is dropped.
        max_bytes: of their inputs together; also ``64MiB``.
    """

    max_size: Annotated[int, pydantic.Field(ge=1, le=100_000)] = 64
    max_bytes: Annotated[int, pydantic.Field(ge=1)] = 64 * 1024 * 1024

    @pydantic.field_validator("max_bytes", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return parse_bytes(value)


class Shadow(Section):
    """The primary answers; mirrors get copies, and the answers are compared.

    Attributes:
        sample_percent: of the requests, in steps of 0.01.
        workers: copies that run at the same time.
        timeout_ms: how long a copy may run.
        tolerance: by how much real numbers may differ and still be the same, relative to the
            larger one, or absolute below one.
        keep: comparisons that are remembered.
    """

    kind: Literal["shadow"]
    primary: Member
    mirrors: Annotated[tuple[Member, ...], pydantic.Field(min_length=1, max_length=16)]
    sample_percent: Annotated[float, pydantic.Field(ge=0, le=100)] = 100.0
    queue: CopyQueue = CopyQueue()
    workers: Annotated[int, pydantic.Field(ge=1, le=64)] = 1
    timeout_ms: PositiveMs = 30_000
    tolerance: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 1e-3
    keep: Annotated[int, pydantic.Field(ge=0, le=100_000)] = 1000

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Shadow:
        check_names(self.members)
        if abs(self.sample_percent * 100 - round(self.sample_percent * 100)) > 1e-6:
            raise ValueError("sample_percent has steps of 0.01")
        return self

    @property
    def members(self) -> tuple[Member, ...]:
        """The primary first."""
        return (self.primary, *self.mirrors)


class CascadeStage(Member):
    """One stage of a cascade.

    Attributes:
        scores: what its numbers are, where that is not what the cascade says of all.
        labels: class names in index order, where the model itself has none.
        temperature: divides its log-scores.
        threshold: it answers where it is at least so confident; of the last stage there is none.
    """

    scores: Literal["probabilities", "logits"] | None = None
    labels: tuple[str, ...] | None = None
    temperature: PositiveMs = 1.0
    threshold: Fraction | None = None


class Cascade(Section):
    """The first stage answers what it is sure of, the next one the rest, and so on.

    Attributes:
        scores: what the stages' numbers are.
        output: with the scores; by default the one output that all stages have with labels.
        measure: what counts as confidence.
        per: what is decided on: each row, or a request, which one unsure row takes along.
        gate: file beside the configuration with a gate's report, in place of thresholds and
            ``measure``; its deferral rate is watched.
        stage_output: an output that has the place of the stage that answered each row.
    """

    kind: Literal["cascade"]
    stages: Annotated[tuple[CascadeStage, ...], pydantic.Field(min_length=2, max_length=16)]
    scores: Literal["probabilities", "logits"] | None = None
    output: Name | None = None
    measure: Literal["maximum", "margin", "entropy"] | None = None
    per: Literal["row", "request"] = "row"
    gate: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] | None = (
        None
    )
    stage_output: Name | None = None

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Cascade:
        check_names(self.stages)
        lacking = [s.name or s.model for s in self.stages if not (s.scores or self.scores)]
        if lacking:
            raise ValueError(
                f"say what the outputs of {', '.join(lacking)} are: scores: probabilities or logits"
            )
        if self.stages[-1].threshold is not None:
            raise ValueError("the last stage has no threshold: it answers whatever it gets")
        given = [stage.threshold is not None for stage in self.stages[:-1]]
        if self.gate is not None and (any(given) or self.measure is not None):
            raise ValueError("give either gate or thresholds and measure")
        if self.gate is None and not all(given):
            raise ValueError("give every stage but the last a threshold, or the cascade a gate")
        return self

    @property
    def members(self) -> tuple[CascadeStage, ...]:
        """The stages."""
        return self.stages


Ensemble = Weighted | Fallback | Pipeline | Split | Shadow | Cascade
AnyEnsemble = Annotated[
    Ensemble,
    pydantic.Discriminator("kind"),
]


def check_names(members: Sequence[Member]) -> None:
    """Raises ValueError where two members have one name."""
    names = [member.name or member.model for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two members are called '{twice[0]}'; give them a name")
