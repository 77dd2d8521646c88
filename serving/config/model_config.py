"""``model.yaml``: what may be said of a model. Everything in it can be derived from the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
import yaml

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE
from crossfade.runtimes.options import explain
from crossfade.serving.config import processing_config
from crossfade.serving.config.ensemble_config import AnyEnsemble
from crossfade.serving.config.processing_config import Postprocess, Preprocess, Task
from crossfade.serving.config.sizes import parse_bytes
from crossfade.serving.config.table_config import Table

Positive = Annotated[int, pydantic.Field(ge=1)]
PositiveMs = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
# What only a model with files of its own has; the members of an ensemble have their own.
OF_LEAVES = (
    *("platform", "batching", "instances", "slo", "default_filename", "sequence", "decoupled"),
    *("task", "preprocess", "postprocess", "table", "cache", "isolation", "options"),
)


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class VersionPolicy(_Section):
    """Which versions are served: the latest N (the default, N = 1), all, or those named."""

    latest: Positive | None = None
    all: Literal[True] | None = None
    specific: tuple[Positive, ...] | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> VersionPolicy:
        if sum(v is not None for v in (self.latest, self.all, self.specific)) > 1:
            raise ValueError("give one of latest, all, specific")
        return self


class Batching(_Section):
    """How requests are stacked.

    ``auto`` measures the model while it warms up and chooses both numbers from the latency curve
    and the ``slo``.
    """

    auto: bool = False
    max_size: Positive = 1
    max_delay_ms: Annotated[float, pydantic.Field(ge=0, le=10_000, allow_inf_nan=False)] = 0.0


class Queue(_Section):
    """Where requests wait while all instances are busy.

    Attributes:
        max_size: requests that may wait; one more is refused.
        timeout_ms: a request that waited longer is refused; ``None`` is for ever.
        priority_levels: 1 is served first; a request without a priority has ``default_priority``.
            0 switches priorities off.
    """

    max_size: Positive = 1024
    timeout_ms: PositiveMs | None = None
    priority_levels: Annotated[int, pydantic.Field(ge=0, le=1000)] = 0
    default_priority: Annotated[int, pydantic.Field(ge=0)] = 0

    @pydantic.model_validator(mode="after")
    def _levels(self) -> Queue:
        if self.priority_levels and not 1 <= self.default_priority <= self.priority_levels:
            raise ValueError(f"default_priority must be 1 to {self.priority_levels}")
        return self


class Slo(_Section):
    """The latency that the model's users were promised."""

    p99_ms: PositiveMs


class Warmup(_Section):
    """Requests that a version must answer before it takes traffic.

    Attributes:
        count: how often.
        inputs: JSON tensors by input name; inputs left out are zeros (BYTES: empty strings).
        signature: which signature is called.
    """

    count: Positive = 1
    inputs: Mapping[str, Any] = pydantic.Field(default_factory=dict)
    signature: str = DEFAULT_SIGNATURE


class SequenceControl(_Section):
    """An input by which a model is told where it is in a sequence.

    Attributes:
        kind: ``start`` and ``end`` are true for the first and the last request, ``ready`` always;
            ``corrid`` is the sequence's id.
        dtype: of the input, where the configuration declares it; checked against the model.
        false_true: what the input is filled with.
    """

    input: str
    kind: Literal["start", "end", "ready", "corrid"]
    dtype: str | None = None
    false_true: tuple[float, float] = (0, 1)


class SequenceState(_Section):
    """A state that the model takes as ``input`` and gives back, changed, as ``output``.

    Attributes:
        initial: what the first request of a sequence finds in every element.
    """

    input: str
    output: str
    initial: float = 0


class Sequencing(_Section):
    """How requests that belong together are told apart from others, and what is kept for them.

    Attributes:
        max_idle_ms: a sequence that has not been used for so long is forgotten.
        max_sequences: sequences that may go on at the same time; one more is refused.
    """

    max_idle_ms: PositiveMs = 60_000
    max_sequences: Positive = 1024
    controls: tuple[SequenceControl, ...] = ()
    states: tuple[SequenceState, ...] = ()


class Isolation(_Section):
    """Where a model runs: in the server, or in a worker process of its own.

    Attributes:
        process: in a worker process; what crashes there costs this model's requests alone.
        environment: of that worker, by name: an interpreter with packages of its own.
        python: the same, by the path of its interpreter.
        memory_limit_bytes: private memory that the worker may have; also ``memory_limit: 2GiB``.
        load_timeout_s: a load that takes longer has failed.
        run_timeout_s: a run that takes longer ends the worker; ``None`` is no limit.
    """

    process: bool = True
    environment: str | None = None
    python: str | None = None
    memory_limit_bytes: Positive | None = None
    load_timeout_s: Annotated[float, pydantic.Field(gt=0, le=86_400)] = 300.0
    run_timeout_s: Annotated[float, pydantic.Field(gt=0, le=86_400)] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _limit(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "memory_limit" in value:
            given = dict(value)
            if "memory_limit_bytes" in given:
                raise ValueError("give one of memory_limit, memory_limit_bytes")
            limit = parse_bytes(given.pop("memory_limit"))
            return {**given, "memory_limit_bytes": limit}
        return value

    @pydantic.model_validator(mode="after")
    def _one(self) -> Isolation:
        if self.environment is not None and self.python is not None:
            raise ValueError("give one of environment, python")
        if not self.process and self.model_fields_set - {"process"}:
            raise ValueError("the other keys need process: true")
        return self


class Cache(_Section):
    """Answers that are remembered, so that an equal request needs no run.

    Attributes:
        max_bytes: what they may take together; also ``64MiB``.
        ttl_s: an older answer is not given; ``None`` is no limit.
    """

    max_bytes: Positive = 64 << 20
    ttl_s: Annotated[float, pydantic.Field(gt=0, le=31_536_000)] | None = None

    @pydantic.field_validator("max_bytes", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return parse_bytes(value) if isinstance(value, str) else value


class DeclaredTensor(_Section):
    """An input or output as a configuration declares it.

    Attributes:
        dims: without the batch dimension if ``max_batch_size`` is not 0; -1 is any size.
        reshape: the shape that the model itself wants, where it differs from ``dims``.
        labels: class names in index order (outputs).
        labels_file: a file beside the configuration with one class name a line (outputs).
    """

    name: str
    dtype: str | None = None
    dims: tuple[Annotated[int, pydantic.Field(ge=-1)], ...] | None = None
    reshape: tuple[Annotated[int, pydantic.Field(ge=-1)], ...] | None = None
    labels: tuple[str, ...] | None = None
    labels_file: str | None = None

    @pydantic.field_validator("dtype")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in NUMPY:
            raise ValueError(f"unknown dtype; one of {', '.join(NUMPY)}")
        return value


class ModelConfig(_Section):
    """One model's configuration, whatever file it came from.

    Attributes:
        platform: which runtime opens it; derived from the files.
        version_policy: which versions are served.
        labels: names for versions, such as ``stable`` and ``canary``.
        max_batch_size: rows that one request may have; 0 says that there is no batch dimension;
            ``None`` derives it from the signature.
        batching: how requests are stacked; ``None`` is ``auto`` for a batched signature.
        instances: runs that may go on at the same time; ``None`` is one a core.
        default_filename: the file in a version's folder to open.
        inputs, outputs: what Triton's ``config.pbtxt`` declares; checked against the model.
        sequence: makes requests that belong together share a state.
        decoupled: a request has any number of responses, and comes over a stream.
        task: what the model is for; decides what ``postprocess`` gives.
        preprocess: clients send image files.
        postprocess: clients get what the task calls an answer.
        table: clients send rows of columns; what they leave out is filled up.
        cache: remembers answers.
        isolation: runs it in a worker process of its own (``process``).
        ensemble: models that answer together; there are then no files.
        options: passed to the runtime.
    """

    platform: str | None = None
    version_policy: VersionPolicy = VersionPolicy()
    labels: Mapping[Annotated[str, pydantic.Field(min_length=1)], Positive] = pydantic.Field(
        default_factory=dict
    )
    max_batch_size: Annotated[int, pydantic.Field(ge=0)] | None = None
    batching: Batching | None = None
    instances: Annotated[int, pydantic.Field(ge=1, le=1024)] | None = None
    queue: Queue = Queue()
    slo: Slo | None = None
    warmup: tuple[Warmup, ...] = ()
    default_filename: str | None = None
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    sequence: Sequencing | None = None
    decoupled: bool = False
    task: Task | None = None
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    table: Table | None = None
    cache: Cache | None = None
    isolation: Isolation | None = None
    ensemble: AnyEnsemble | None = None
    options: Mapping[str, Any] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("batching", mode="before")
    @classmethod
    def _auto(cls, value: object) -> object:
        return {"auto": True} if value == "auto" else value

    @pydantic.field_validator("isolation", mode="before")
    @classmethod
    def _process(cls, value: object) -> object:
        return {"process": True} if value == "process" else value

    @pydantic.field_validator("version_policy", mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return {"all": True} if value == "all" else {"latest": 1} if value == "latest" else value

    @pydantic.model_validator(mode="after")
    def _streams(self) -> ModelConfig:
        if self.decoupled and self.sequence is not None:
            raise ValueError("decoupled and sequence do not go together")
        if self.decoupled and self.isolation is not None and self.isolation.process:
            raise ValueError("a decoupled model cannot be isolated")
        return self

    @pydantic.model_validator(mode="after")
    def _remembers(self) -> ModelConfig:
        if self.cache is not None and (self.decoupled or self.sequence is not None):
            raise ValueError(
                "cache does not go together with sequence and decoupled: an answer must depend on"
                " its request alone"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _processes(self) -> ModelConfig:
        processing_config.check(self.task, self.preprocess, self.postprocess)
        if self.decoupled and (self.task or self.preprocess):
            raise ValueError("decoupled does not go together with task and preprocess")
        if self.table is not None:
            if self.preprocess is not None or self.decoupled:
                raise ValueError("table does not go together with preprocess and decoupled")
            if self.postprocess is not None and self.table.prediction is not None:
                raise ValueError("give one of postprocess, table.prediction: both make the answer")
        if self.task == "tracking" and self.sequence is None:
            raise ValueError("task tracking needs sequence, which keeps what the model remembers")
        return self

    @pydantic.model_validator(mode="after")
    def _combines(self) -> ModelConfig:
        if self.ensemble is not None:
            mine = {name for name in OF_LEAVES if getattr(self, name)}
            if mine:
                raise ValueError(f"ensemble does not go together with {', '.join(sorted(mine))}")
        return self

    @pydantic.field_validator("default_filename")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and ("/" in value or "\\" in value or value in {"", ".", ".."}):
            raise ValueError("must be a file name without folders")
        return value


def parse(text: str, file: str) -> ModelConfig:
    """Parses ``model.yaml``.

    Raises:
        LoadFailed: with every fault, where it is, and the nearest right key for an unknown one.
    """
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise LoadFailed(f"{file}{where}: not YAML: {getattr(error, 'problem', '')}") from None
    except (ValueError, RecursionError) as error:  # a date that is none; thousands of brackets
        raise LoadFailed(f"{file}: not YAML that can be read: {error}") from None
    if not isinstance(raw, dict):
        raise LoadFailed(f"{file}: must be a mapping of keys to values")
    return build(raw, file)


def build(raw: Mapping[str, Any], file: str) -> ModelConfig:
    """Builds a configuration of plain values; raises as ``parse`` does."""
    try:
        return ModelConfig.model_validate(raw)
    except pydantic.ValidationError as error:
        raise LoadFailed(f"{file}: {explain(error, ModelConfig, 'key')}") from None
