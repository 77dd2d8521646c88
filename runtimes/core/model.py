"""The contracts: what a runtime writes (Session, Runtime) and what the rest sees (Model).

All values are immutable; all sessions and models may be called from many threads at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol, Self, runtime_checkable

import numpy as np

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.trace import Span

Tensor = np.ndarray[Any, Any]
Tensors = Mapping[str, Tensor]
DEFAULT_SIGNATURE: Final = "serving_default"
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _EMPTY


@dataclasses.dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: as clients write it.
        dtype: a name of ``runtimes.core.dtypes.NUMPY``.
        shape: -1 is any size; ``None`` is any rank; includes the batch dimension, if any.
        optional: an input that a request may leave out.
        alternative: another form of the input that a request may have in its place, told apart
            by name or dtype; metadata does not show it.
        cells: cells of a table, as text: numbers of any dtype may come in their place; a cell that
            is empty has no value.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    optional: bool = False
    alternative: TensorSpec | None = None
    cells: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """One callable of a model: named inputs to named outputs, in the model's own order.

    Attributes:
        batched: dimension 0 of every input and output is the batch, of any size; rows do not
            influence each other, so that requests may be stacked.
        method: what the exporter declared it for (``predict``, ``classify``, ``regress``).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool = False
    method: str = "predict"

    @classmethod
    def derive(
        cls, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], method: str = "predict"
    ) -> Self:
        """Builds a signature; it is batched if every shape is known and leads with -1."""
        specs = (*inputs, *outputs)
        batched = bool(inputs) and all(s.shape and s.shape[0] == -1 for s in specs)
        return cls(tuple(inputs), tuple(outputs), batched, method)


@dataclasses.dataclass(frozen=True, slots=True)
class Artifact:
    """One version's files on the local disk, ready to be loaded.

    Attributes:
        path: the file (``model.onnx``) or folder (a SavedModel) that the runtime opens.
        name: the model's name.
        version: the version number, positive.
        instances: how many runs may go on at the same time; a runtime whose library is not
            thread-safe makes as many interpreters.
        options: the runtime's own options from the model's configuration.
    """

    path: Path
    name: str
    version: int
    instances: int = 1
    options: Mapping[str, Any] = dataclasses.field(default_factory=_nothing)


@dataclasses.dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What is known of a loaded version.

    Attributes:
        labels: class names by output name, in index order; outputs without labels are absent.
        max_batch_size: rows that one run may have; 0 where the model is not batched.
        nodes: how many of the graph's nodes run where, as far as the runtime says.
        quantization: scale and zero point, by name, of tensors that store real numbers as integers.
        headers: those it looks at, in lower case; they are parameters called ``header:NAME``.
    """

    name: str
    version: int
    platform: str
    signatures: Mapping[str, Signature]
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=_nothing)
    max_batch_size: int = 0
    nodes: Mapping[str, int] = dataclasses.field(default_factory=_nothing)
    quantization: Mapping[str, tuple[float, int]] = dataclasses.field(default_factory=_nothing)
    headers: tuple[str, ...] = ()

    @property
    def default_signature(self) -> str:
        """``serving_default`` where it exists, else the first one."""
        if DEFAULT_SIGNATURE in self.signatures:
            return DEFAULT_SIGNATURE
        return next(iter(self.signatures))


class Cancellation(Protocol):
    """Whether the caller has gone; cheap to ask, safe from any thread."""

    def is_set(self) -> bool:
        """True once the caller has cancelled or disconnected."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once, from any thread, when it is set (at once if it is)."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class InferRequest:
    """One validated request.

    Attributes:
        inputs: arrays that fit the signature; read-only views on the message where possible.
        outputs: names wanted; empty means all.
        deadline_s: ``time.monotonic()`` value after which nobody wants the answer.
        priority: smaller is served first; 0 is the default level.
        rows: size of the batch dimension, 1 where there is none.
        trace: what it is a part of; ``None`` where nothing is traced.
    """

    inputs: Tensors
    signature: str = DEFAULT_SIGNATURE
    outputs: tuple[str, ...] = ()
    deadline_s: float | None = None
    priority: int = 0
    id: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=_nothing)
    cancelled: Cancellation | None = None
    rows: int = 1
    trace: Span | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Timings:
    """Nanoseconds of a request (in and out: pre- and postprocessing), and how large its run was."""

    queue_ns: int = 0
    infer_ns: int = 0
    batch_rows: int = 1
    input_ns: int = 0
    output_ns: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class InferResponse:
    """One answer; ``outputs`` keeps the signature's order; not ``final`` where more may follow."""

    outputs: Tensors
    model: ModelMetadata
    timings: Timings = Timings()
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=_nothing)
    final: bool = True


InferResult = InferResponse | CrossfadeError


@runtime_checkable
class Session(Protocol):
    """One loaded version: what the author of a runtime writes. Thread-safe.

    It may have ``instances``, how many runs can go on at once if not what the artifact asked for,
    ``max_rows``, of a batch at most, and ``nodes`` and ``quantization``, see ``ModelMetadata``.
    """

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """Signatures by name, at least one; fixed once loaded."""
        ...

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """Runs once and returns exactly ``outputs`` (all of the signature's, if empty).

        Inputs have been validated against the signature and may be read-only. The arrays
        returned belong to the caller.

        Raises:
            InvalidArgument: the model refuses these values (a broken JPEG, an index too large).
            Internal: anything else; foreign exceptions do not pass.
        """
        ...

    def close(self) -> None:
        """Gives all memory back. Called once, when no run is going on."""
        ...


class Runtime(Protocol):
    """One platform. Cheap to build: its library is imported in ``load``."""

    platform: ClassVar[str]

    def estimate(self, artifact: Artifact) -> int:
        """Bytes of memory that the loaded version takes, an upper bound."""
        ...

    def load(self, artifact: Artifact) -> Session:
        """Loads a version.

        Raises:
            LoadFailed: with the reason, and what to do about it.
            MissingExtra: the platform's library is not installed.
        """
        ...


@runtime_checkable
class StreamingSession(Session, Protocol):
    """A session that can also answer one request with any number of responses."""

    def stream(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Iterator[Tensors]:
        """As ``run``, one response after the other; closed early when nobody wants the rest."""
        ...


@runtime_checkable
class Model(Protocol):
    """What the data plane, batching and the ensembles see. Thread-safe."""

    @property
    def metadata(self) -> ModelMetadata:
        """Fixed for the life of the model."""
        ...

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """Answers each request, as many as came, in order; one that fails fails no neighbour."""
        ...

    def close(self) -> None:
        """Gives all resources back. Called once, when no lease is out."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRef:
    """Names a model and, if given, one version or one label (never both)."""

    name: str
    version: int | None = None
    label: str | None = None


class Lease(Protocol):
    """Keeps one version alive while it is held. Not for keeping."""

    def __enter__(self) -> Model: ...

    def __exit__(self, *exc: object) -> None: ...


class Resolver(Protocol):
    """How the data plane or an ensemble reaches a live version."""

    def lease(self, ref: ModelRef) -> Lease:
        """Leases the version that ``ref`` means now.

        Raises:
            NotFound: no such model, version or label.
            Unavailable: known, but no version can take traffic now.
        """
        ...
