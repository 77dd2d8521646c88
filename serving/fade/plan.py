"""``fade.yaml``: the steps of a fade, and what must hold at each of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
import yaml

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.options import explain
from crossfade.serving.config.ensemble_config import SplitKey

Share = Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)]
Percent = Annotated[float, pydantic.Field(ge=0, le=100, multiple_of=0.01, allow_inf_nan=False)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Step(_Section):
    """How much of the traffic the candidate answers, and for how long at least.

    Attributes:
        traffic_percent: of the requests, answered by the candidate; ``shadow`` is 0.
        mirror_percent: of the requests, answered by both members, only one of which the caller
            sees; these pairs are what quality and errors are judged by. With 0 they are judged
            by the requests that each member answered alone, which needs several times as many.
        min_time_s: the step lasts so long at least.
        min_samples: comparisons (pairs, or the candidate's requests without a mirror) that are
            needed at least.
    """

    traffic_percent: Percent
    mirror_percent: Percent = 10.0
    min_time_s: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] = 3600.0
    min_samples: Annotated[int, pydantic.Field(ge=1)] = 1000

    @pydantic.model_validator(mode="before")
    @classmethod
    def _shadow(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("traffic_percent") == "shadow":
            return {"mirror_percent": 100.0, **given, "traffic_percent": 0.0}
        return given

    @pydantic.model_validator(mode="after")
    def _compared(self) -> Step:
        if self.traffic_percent in {0, 100} and not self.mirror_percent:
            raise ValueError("at shadow and at 100 the members can only be compared with a mirror")
        return self

    @property
    def mirrored(self) -> bool:
        """Whether members are compared by requests that both were asked."""
        return self.mirror_percent > 0


class Difference(_Section):
    """How much worse a rate of the candidate may be than the primary's, in absolute terms.

    Attributes:
        margin: the fade goes on once it is shown that the candidate is worse by less than this.
        tolerance: it is rolled back once it is shown that the candidate is worse by more.
    """

    margin: Annotated[Share, pydantic.Field(gt=0)]
    tolerance: Share = 0.0

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Difference:
        if self.tolerance > self.margin:
            raise ValueError("tolerance may not be above margin")
        return self


class Quality(Difference):
    """Accuracy by labels; agreement of the two members where there are too few.

    Attributes:
        min_labels: labelled comparisons from which on agreement no longer counts.
        min_agreement: share of the pairs in which both members must give the same answer.
    """

    margin: Annotated[Share, pydantic.Field(gt=0)] = 0.02
    min_labels: Annotated[int, pydantic.Field(ge=1)] = 500
    min_agreement: Share = 0.9


class Errors(Difference):
    """The share of requests that fail."""

    margin: Annotated[Share, pydantic.Field(gt=0)] = 0.01


class LatencyLimit(_Section):
    """How much slower a quantile of the candidate's latency may be than the primary's."""

    quantile: Annotated[float, pydantic.Field(gt=0, lt=1)]
    max_ratio: Annotated[float, pydantic.Field(ge=1.05, allow_inf_nan=False)]


class Guardrails(_Section):
    """What is compared at every step."""

    quality: Quality = Quality()
    errors: Errors = Errors()
    latency: tuple[LatencyLimit, ...] = (
        LatencyLimit(quantile=0.5, max_ratio=1.25),
        LatencyLimit(quantile=0.99, max_ratio=1.5),
    )

    @pydantic.field_validator("latency")
    @classmethod
    def _once(cls, limits: tuple[LatencyLimit, ...]) -> tuple[LatencyLimit, ...]:
        if len({limit.quantile for limit in limits}) < len(limits):
            raise ValueError("each quantile may be named once")
        return limits


def _usual_steps() -> tuple[Step, ...]:
    shadow = Step(traffic_percent=0, mirror_percent=100)
    return (shadow, *(Step(traffic_percent=percent) for percent in (1, 5, 25, 50, 100)))


class Plan(_Section):
    """A whole fade.

    Attributes:
        alpha: the chance of rolling back, anywhere in the fade, a candidate that is not worse
            than the tolerances; likewise of going on, at any step, with one beyond a margin.
        label: a label of the model that clients call: it is faded, and moved by the promotion, as
            the model without a label is; it need not be in ``model.yaml``.
        key: requests with one value of it stay at one member; without it, each is a draw of its
            own.
        require_lineage: the candidate needs a true card of what it was made of, as
            ``crossfade train`` writes it.
        version: of this format.
    """

    version: Literal[1] = 1
    label: Annotated[str, pydantic.Field(min_length=1, max_length=128)] | None = None
    key: SplitKey | None = None
    require_lineage: bool = False
    alpha: Annotated[float, pydantic.Field(gt=0, lt=0.5)] = 0.05
    steps: tuple[Step, ...] = pydantic.Field(default_factory=_usual_steps)
    guardrails: Guardrails = Guardrails()

    @pydantic.field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        shares = [step.traffic_percent for step in steps]
        if not shares or shares[-1] != 100:
            raise ValueError("the last step must have 100 percent of the traffic")
        if any(b <= a for a, b in itertools.pairwise(shares)):
            raise ValueError("each step must have more traffic than the one before")
        return steps

    @property
    def alpha_each(self) -> float:
        """The share of ``alpha`` that each comparison of each step may use."""
        comparisons = 3 + len(self.guardrails.latency)  # labels, agreement, errors
        return self.alpha / (len(self.steps) * comparisons)


def parse(text: str, file: str) -> Plan:
    """Parses ``fade.yaml``; an empty one is a plan of defaults.

    Raises:
        InvalidArgument: with every fault, where it is, and the nearest right key for an unknown
            one.
    """
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidArgument(f"{file}{where}: not YAML that can be read") from None
    if not isinstance(raw, Mapping | None):
        raise InvalidArgument(f"{file} must be a mapping, such as `steps: […]`")
    try:
        return Plan.model_validate(raw or {})
    except pydantic.ValidationError as error:
        raise InvalidArgument(f"{file}: {explain(error, Plan, 'key')}") from None
