"""What a configuration declares of a model's tensors, checked against the model, and obeyed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    Session,
    Signature,
    StreamingSession,
    Tensors,
    TensorSpec,
)
from crossfade.serving.config.model_config import DeclaredTensor, ModelConfig

Shape = tuple[int, ...]


class DeclaredSession:
    """A session seen as its configuration declares it: fewer outputs, other shapes.

    Triton's ``reshape`` is applied on the way in and undone on the way out.
    """

    def __init__(self, session: Session, signature: Signature, config: ModelConfig) -> None:
        self._session = session
        self._batched = signature.batched
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._into = {name: (dims, inner) for name, dims, inner in _reshaped(config.inputs)}
        self._back = {name: (inner, dims) for name, dims, inner in _reshaped(config.outputs)}
        self.signatures: Mapping[str, Signature] = {_default(session): signature}

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        shaped = self._reshaped(inputs, self._into)
        found = self._session.run(shaped, signature, outputs or self._outputs)
        return self._reshaped(found, self._back)

    def stream(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Iterator[Tensors]:
        """See ``StreamingSession.stream``; only where the session has it."""
        assert isinstance(self._session, StreamingSession)
        shaped = self._reshaped(inputs, self._into)
        for found in self._session.stream(shaped, signature, outputs or self._outputs):
            yield self._reshaped(found, self._back)

    def close(self) -> None:
        """See ``Session.close``."""
        self._session.close()

    def _reshaped(self, tensors: Tensors, shapes: Mapping[str, tuple[Shape, Shape]]) -> Tensors:
        return {
            name: array.reshape(self._full(*shapes[name], array.shape)) if name in shapes else array
            for name, array in tensors.items()
        }

    def _full(self, before: Shape, after: Shape, actual: Shape) -> Shape:
        """``after`` with the batch, and the sizes that ``actual`` has where ``before`` is free."""
        batch = actual[:1] if self._batched else ()
        sizes = zip(before, actual[len(batch) :], strict=True)
        free = iter([size for declared, size in sizes if declared == -1])
        return (*batch, *(next(free) if size == -1 else size for size in after))


def declare(session: Session, config: ModelConfig) -> Session:
    """Returns the session as the configuration declares it.

    Raises:
        LoadFailed: the configuration and the model contradict each other.
    """
    if not (config.inputs or config.outputs):
        return session
    signature = declared(session.signatures[_default(session)], config)
    return DeclaredSession(session, signature, config)


def declared(signature: Signature, config: ModelConfig) -> Signature:
    """Returns a model's default signature as the configuration declares it; raises as ``declare``.

    What the configuration does not declare at all stays as it is.
    """
    limit = config.max_batch_size
    batched = signature.batched if limit is None else limit > 0
    inputs = _checked("input", config.inputs, signature.inputs, batched)
    inputs = (*inputs, *_unseen(signature.inputs, inputs, _hidden_inputs(config)))
    missing = {s.name for s in signature.inputs if not s.optional} - {s.name for s in inputs}
    if config.inputs and missing:
        raise LoadFailed(f"the configuration does not declare the input(s) {sorted(missing)}")
    outputs = _checked("output", config.outputs, signature.outputs, batched)
    outputs = (*outputs, *_unseen(signature.outputs, outputs, _hidden_outputs(config)))
    if batched and not signature.batched:
        raise LoadFailed(
            f"max_batch_size is {config.max_batch_size}, but the model's first dimension is not"
            " a batch of any size; set max_batch_size to 0"
        )
    return Signature(inputs, outputs, batched, signature.method)


def _hidden_inputs(config: ModelConfig) -> set[str]:
    """Inputs that the server fills: no client sees them, and no configuration lists them."""
    sequence = config.sequence
    if sequence is None:
        return set()
    return {c.input for c in sequence.controls} | {s.input for s in sequence.states}


def _hidden_outputs(config: ModelConfig) -> set[str]:
    return {state.output for state in config.sequence.states} if config.sequence else set()


def _unseen(
    actual: Sequence[TensorSpec], listed: Sequence[TensorSpec], hidden: set[str]
) -> list[TensorSpec]:
    names = {spec.name for spec in listed}
    return [spec for spec in actual if spec.name in hidden and spec.name not in names]


def _default(session: Session) -> str:
    names = session.signatures
    return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else next(iter(names))


def _reshaped(tensors: Sequence[DeclaredTensor]) -> Iterator[tuple[str, Shape, Shape]]:
    for tensor in tensors:
        if tensor.dims is not None and tensor.reshape is not None:
            yield tensor.name, tensor.dims, tensor.reshape


def _checked(
    kind: str, declared: Sequence[DeclaredTensor], actual: Sequence[TensorSpec], batched: bool
) -> tuple[TensorSpec, ...]:
    if not declared:
        return tuple(actual)
    by_name = {spec.name: spec for spec in actual}
    return tuple(_check(kind, tensor, by_name, batched) for tensor in declared)


def _check(
    kind: str, tensor: DeclaredTensor, by_name: Mapping[str, TensorSpec], batched: bool
) -> TensorSpec:
    spec = by_name.get(tensor.name)
    if spec is None:
        raise LoadFailed(
            f"the configuration declares the {kind} '{tensor.name}', but the model has"
            f" {sorted(by_name)}"
        )
    if tensor.dtype is not None and tensor.dtype != spec.dtype:
        raise LoadFailed(
            f"the configuration declares {kind} '{tensor.name}' as {tensor.dtype}, but the model"
            f" has {spec.dtype}"
        )
    if tensor.dims is None:
        return spec
    if tensor.reshape is not None and _size(tensor.dims) != _size(tensor.reshape):
        raise LoadFailed(
            f"the configuration reshapes {kind} '{tensor.name}' from {list(tensor.dims)} to"
            f" {list(tensor.reshape)}, which are not of one size"
        )
    batch: Shape = (-1,) if batched else ()
    inner = (*batch, *(tensor.dims if tensor.reshape is None else tensor.reshape))
    if spec.shape is not None and not _agree(inner, spec.shape):
        raise LoadFailed(
            f"the configuration declares {kind} '{tensor.name}' with shape {list(inner)}, but the"
            f" model has {list(spec.shape)}"
        )
    return dataclasses.replace(spec, shape=(*batch, *tensor.dims))


def _size(shape: Shape) -> tuple[int, int]:
    """Number of free dimensions, and product of the others."""
    return shape.count(-1), math.prod(size for size in shape if size != -1)


def _agree(declared: Shape, actual: Shape) -> bool:
    return len(declared) == len(actual) and all(
        -1 in (d, a) or d == a for d, a in zip(declared, actual, strict=True)
    )
