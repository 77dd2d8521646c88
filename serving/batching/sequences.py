"""Sequences: requests of one caller that belong together, with the model's state kept between them.

A recurrent model takes its state as inputs and gives the next one as outputs; others are told by
control inputs where a sequence starts and ends. Clients see neither: they send ``sequence_id``,
``sequence_start`` and ``sequence_end``, as Triton's clients do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    InvalidArgument,
    LoadFailed,
    ResourceExhausted,
    escape,
)
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResult,
    Model,
    ModelMetadata,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
)
from crossfade.serving.config.model_config import SequenceControl, Sequencing

SequenceId = int | str
_ID_DTYPES = frozenset({"UINT64", "INT64", "UINT32", "INT32", "BYTES"})


class _Sequence:
    """One sequence that is going on. Its lock is held while a request of it runs."""

    __slots__ = ("lock", "state", "used_s", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.state: Tensors = {}
        self.used_s = 0.0
        self.users = 0  # requests that run or wait for the lock; guarded by the model's lock


class Sequenced:
    """A Model that keeps the state of its callers' sequences. Thread-safe.

    Requests of one sequence run one after the other, in the order in which they came; those of
    different sequences run together, and may be stacked by the Model inside. A request that fails
    leaves the state as it was.

    Raises:
        LoadFailed: the configuration names inputs or outputs that the model does not have.
    """

    def __init__(
        self, inner: Model, config: Sequencing, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._config = config
        self._now = now
        metadata = inner.metadata
        self._signature = metadata.signatures[metadata.default_signature]
        self._inputs = {spec.name: spec for spec in self._signature.inputs}
        self._state_outputs = tuple(state.output for state in config.states)
        self._check()
        self.metadata: ModelMetadata = dataclasses.replace(
            metadata, signatures={metadata.default_signature: self._visible()}
        )
        self._lock = threading.Lock()
        self._sequences: OrderedDict[SequenceId, _Sequence] = OrderedDict()  # longest idle first

    @property
    def active(self) -> int:
        """Sequences that are going on."""
        return len(self._sequences)

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        """See ``Model.infer``."""
        answers: dict[int, InferResult] = {}
        waiting = list(range(len(requests)))
        while waiting:
            wave: dict[SequenceId, int] = {}
            later: list[int] = []
            for index in waiting:
                try:
                    name = self._id(requests[index])
                except CrossfadeError as error:
                    answers[index] = error
                    continue
                if name in wave:
                    later.append(index)
                else:
                    wave[name] = index
            self._run(wave, requests, answers)
            waiting = later
        return [answers[index] for index in range(len(requests))]

    def close(self) -> None:
        """See ``Model.close``."""
        self._sequences.clear()
        self._inner.close()

    def _run(
        self,
        wave: Mapping[SequenceId, int],
        requests: Sequence[InferRequest],
        answers: dict[int, InferResult],
    ) -> None:
        """Runs one request each of some sequences, together."""
        taken: dict[SequenceId, _Sequence] = {}
        for name, index in wave.items():
            try:
                taken[name] = self._take(name, requests[index])
            except CrossfadeError as error:
                answers[index] = error
        with contextlib.ExitStack() as stack:
            # In one order for all threads: two that hold what the other wants would wait for ever.
            for name in sorted(taken, key=lambda n: (isinstance(n, str), n)):
                stack.enter_context(taken[name].lock)
            inner = [self._fill(name, one, requests[wave[name]]) for name, one in taken.items()]
            results = self._inner.infer(inner) if inner else ()
            for (name, one), result in zip(taken.items(), results, strict=True):
                answers[wave[name]] = self._keep(one, result)
        for name, one in taken.items():
            self._give_back(name, one, requests[wave[name]])

    def _take(self, name: SequenceId, request: InferRequest) -> _Sequence:
        """The sequence that a request belongs to; makes it, if the request starts it.

        Raises:
            InvalidArgument: it does not go on, and the request does not start it.
            ResourceExhausted: too many go on.
        """
        starts = bool(request.parameters.get("sequence_start"))
        with self._lock:
            self._forget_idle()
            one = self._sequences.get(name)
            if one is None:
                if not starts:
                    raise InvalidArgument(
                        f"inference request for sequence {escape(str(name))} to model"
                        f" '{self.metadata.name}' must specify the START flag on the first request"
                        " of the sequence"
                    )
                if len(self._sequences) >= self._config.max_sequences:
                    raise ResourceExhausted(
                        f"model '{self.metadata.name}' has {len(self._sequences)} sequences,"
                        " and takes no more",
                        retry_after_s=min(1.0, self._config.max_idle_ms / 1000),
                    )
                one = self._sequences[name] = _Sequence()
            one.users += 1
            return one

    def _give_back(self, name: SequenceId, one: _Sequence, request: InferRequest) -> None:
        with self._lock:
            one.users -= 1
            one.used_s = self._now()
            if self._sequences.get(name) is one:
                self._sequences.move_to_end(name)
                if request.parameters.get("sequence_end"):
                    del self._sequences[name]

    def _forget_idle(self) -> None:
        oldest_s = self._now() - self._config.max_idle_ms / 1000
        for name, one in list(self._sequences.items()):
            if one.users:
                continue
            if one.used_s > oldest_s:
                break  # those behind it have been used later
            del self._sequences[name]

    def _fill(self, name: SequenceId, one: _Sequence, request: InferRequest) -> InferRequest:
        """Adds the inputs that the caller does not see."""
        flags = request.parameters
        starts = bool(flags.get("sequence_start"))
        values: dict[str, object] = {
            "start": starts,
            "ready": True,
            "end": bool(flags.get("sequence_end")),
        }
        inputs = dict(request.inputs)
        for control in self._config.controls:
            spec = self._inputs[control.input]
            if control.kind == "corrid":
                inputs[spec.name] = _full(spec, name.encode() if isinstance(name, str) else name)
            else:
                inputs[spec.name] = _full(spec, control.false_true[bool(values[control.kind])])
        for state in self._config.states:
            kept = None if starts else one.state.get(state.input)
            spec = self._inputs[state.input]
            inputs[spec.name] = _full(spec, state.initial) if kept is None else kept
        wanted = request.outputs and (*request.outputs, *self._state_outputs)
        return dataclasses.replace(request, inputs=inputs, outputs=wanted)

    def _keep(self, one: _Sequence, result: InferResult) -> InferResult:
        """Keeps the state, and takes it out of the answer."""
        if isinstance(result, CrossfadeError):
            return result
        outputs = dict(result.outputs)
        kept = {state.input: outputs.pop(state.output) for state in self._config.states}
        # A row of a stack would keep the whole stack.
        one.state = {name: a if a.base is None else a.copy() for name, a in kept.items()}
        return dataclasses.replace(result, outputs=outputs, model=self.metadata)

    def _id(self, request: InferRequest) -> SequenceId:
        name = request.parameters.get("sequence_id")
        model = self.metadata.name
        if not name:
            raise InvalidArgument(
                f"inference request to model '{model}' must specify a non-zero or non-empty"
                " correlation ID"
            )
        if self._signature.batched and request.rows != 1:
            raise InvalidArgument(
                f"inference request to model '{model}' must specify batch-size 1 due to"
                " constraints of the sequence batcher"
            )
        for control in self._config.controls:
            if control.kind == "corrid":
                _check_id(name, self._inputs[control.input], model)
        assert isinstance(name, int | str)
        return name

    def _check(self) -> None:
        outputs = {spec.name for spec in self._signature.outputs}
        names = [c.input for c in self._config.controls] + [s.input for s in self._config.states]
        for name in names:
            if name not in self._inputs:
                raise LoadFailed(f"sequence: the model has no input '{name}'")
            if names.count(name) > 1:
                raise LoadFailed(f"sequence: the input '{name}' is named twice")
            if self._inputs[name].shape is None:
                raise LoadFailed(f"sequence: the shape of input '{name}' is not known")
        for state in self._config.states:
            if state.output not in outputs:
                raise LoadFailed(f"sequence: the model has no output '{state.output}'")
        for control in self._config.controls:
            _check_control(control, self._inputs[control.input])

    def _visible(self) -> Signature:
        hidden = {c.input for c in self._config.controls} | {s.input for s in self._config.states}
        return dataclasses.replace(
            self._signature,
            inputs=tuple(s for s in self._signature.inputs if s.name not in hidden),
            outputs=tuple(s for s in self._signature.outputs if s.name not in self._state_outputs),
        )


def _check_control(control: SequenceControl, spec: TensorSpec) -> None:
    if control.dtype not in (None, spec.dtype):
        raise LoadFailed(
            f"sequence: the control '{spec.name}' is declared as {control.dtype}, but the model"
            f" has {spec.dtype}"
        )
    if control.kind != "corrid" and spec.dtype == "BYTES":
        raise LoadFailed(f"sequence: the control '{spec.name}' cannot be BYTES")
    if control.kind == "corrid" and spec.dtype not in _ID_DTYPES:
        raise LoadFailed(f"sequence: a correlation id cannot be {spec.dtype}")


def _check_id(name: object, spec: TensorSpec, model: str) -> None:
    if isinstance(name, str) != (spec.dtype == "BYTES"):
        kind = "a string" if spec.dtype == "BYTES" else "an integer"
        raise InvalidArgument(f"the correlation ID of model '{model}' must be {kind}")
    if isinstance(name, int) and name > np.iinfo(NUMPY[spec.dtype]).max:
        raise InvalidArgument(f"the correlation ID of model '{model}' must fit {spec.dtype}")


def _full(spec: TensorSpec, value: object) -> Tensor:
    """One row of ``value`` in the shape of ``spec``; sizes that are free are 1."""
    shape = tuple(1 if size == -1 else size for size in spec.shape or ())
    dtype = np.object_ if spec.dtype == "BYTES" else NUMPY[spec.dtype]
    made: Tensor = np.empty(shape, dtype)
    made.fill(value)
    return made
