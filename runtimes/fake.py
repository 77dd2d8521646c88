"""The fake platform: a model that is all configuration, for tests, drills and demonstrations.

A version's folder holds ``fake.yaml``:

    behaviour: echo              # echo | sleep | constant | fail | crash
    delay_ms: 5                  # before every answer; sleep is an echo that must have one
    delay_when: {input: x, value: 13}  # only then
    inputs:
      - {name: x, dtype: FP32, shape: [-1, 2]}
    outputs:                     # default: each input under its own name
      - {name: y, from: x}                                        # echo, sleep, fail
      - {name: version, dtype: INT64, shape: [-1], value: 3}      # a number or a text in any shape
    fail: {at: run, code: UNAVAILABLE, message: busy, when: {input: x, value: 13}}
    crash: {at: run, how: exit, when: {input: x, value: 13}}  # ends the whole process
    repeat: n                    # of a decoupled model: so many responses as this input's value

A value without a shape is one per row. With ``repeat``, delays come before each response, and a
failure after the last. ``fail.when`` fails a run in which any element of that
input has that value: a stacked batch with one bad row fails as a whole, its good rows alone pass.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
import pydantic
import yaml

from crossfade.runtimes.core import errors
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    Artifact,
    Session,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
)
from crossfade.runtimes.options import Options

_ERRORS = {
    kind.code.value: kind
    for kind in (
        errors.InvalidArgument,
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.PermissionDenied,
        errors.Unauthenticated,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Cancelled,
        errors.Unimplemented,
        errors.Internal,
    )
}
When = Literal["load", "run"]


class Input(Options):
    """One input, as ``TensorSpec``; a shape left out is any."""

    name: str
    dtype: str = "FP32"
    shape: list[int] | None = None

    @pydantic.field_validator("dtype")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NUMPY:
            raise ValueError(f"unknown dtype; one of {', '.join(NUMPY)}")
        return value


class Output(Input):
    """One output: a copy of an input, or a value."""

    source: str | None = pydantic.Field(default=None, alias="from")
    value: bool | int | float | str | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> Output:
        if (self.source is None) == (self.value is None):
            raise ValueError("give either from or value")
        return self


class Trigger(Options):
    """Which runs fail or are delayed: those with this value in this input."""

    input: str
    value: bool | int | float | str


class Failure(Options):
    """The error that is raised."""

    at: When = "run"
    code: str = "INTERNAL"
    message: str = "the fake fails, as it was told to"
    when: Trigger | None = None

    @pydantic.field_validator("code")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in _ERRORS:
            raise ValueError(f"unknown code; one of {', '.join(_ERRORS)}")
        return value


class Crash(Options):
    """How the process ends: ``exit`` with status 70, by a signal, or not at all (``hang``)."""

    at: When = "run"
    how: Literal["exit", "abort", "segfault", "hang"] = "exit"
    when: Trigger | None = None


class FakeModel(Options):
    """The whole of ``fake.yaml``."""

    behaviour: Literal["echo", "sleep", "constant", "fail", "crash"] = "echo"
    delay_ms: float = pydantic.Field(default=0.0, ge=0, le=3_600_000)
    delay_when: Trigger | None = None
    inputs: list[Input] = pydantic.Field(min_length=1)
    outputs: list[Output] = pydantic.Field(default_factory=list)
    method: Literal["predict", "classify", "regress"] = "predict"
    fail: Failure = Failure()
    crash: Crash = Crash()
    repeat: str | None = None
    memory_bytes: int = pydantic.Field(default=1 << 20, ge=0)

    @pydantic.model_validator(mode="after")
    def _names(self) -> FakeModel:
        known = {given.name for given in self.inputs}
        wanted = {o.source for o in self.outputs if o.source is not None}
        wanted |= {
            when.input for when in (self.fail.when, self.crash.when, self.delay_when) if when
        }
        wanted |= {self.repeat} if self.repeat else set()
        if unknown := wanted - known:
            raise ValueError(f"no input is called {', '.join(sorted(unknown))}")
        if self.behaviour == "sleep" and not self.delay_ms:
            raise ValueError("sleep needs delay_ms")
        if self.behaviour == "constant" and not any(o.value is not None for o in self.outputs):
            raise ValueError("constant needs an output with a value")
        return self


class FakeRuntime:
    """Opens ``fake.yaml``."""

    platform: ClassVar[str] = "fake"

    def estimate(self, artifact: Artifact) -> int:
        """What the file declares as ``memory_bytes``; nothing of the kind is allocated."""
        return _read(artifact).memory_bytes

    def load(self, artifact: Artifact) -> Session:
        """Reads the file; fails or crashes if it says so."""
        model = _read(artifact)
        if model.behaviour == "fail" and model.fail.at == "load":
            raise errors.LoadFailed(model.fail.message)
        if model.behaviour == "crash" and model.crash.at == "load":
            _crash(model.crash)
        return FakeSession(model) if model.repeat is None else RepeatingSession(model)


def _read(artifact: Artifact) -> FakeModel:
    try:
        raw = yaml.safe_load(artifact.path.read_bytes())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise errors.LoadFailed(f"{artifact.path.name} is not YAML") from error
    if not isinstance(raw, dict):
        raise errors.LoadFailed(f"{artifact.path.name} must be a mapping of keys to values")
    return FakeModel.read(raw, artifact.path.name)


class FakeSession:
    """Answers as told. Thread-safe: it has no state."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        given = {i.name: i for i in model.inputs}
        self._outputs = model.outputs or [
            Output.model_validate({"name": n, "from": n}) for n in given
        ]
        inputs = [_spec(i) for i in model.inputs]
        outputs = [
            _spec(given[o.source]) if o.source else _spec(o, per_row=True) for o in self._outputs
        ]
        named = [
            TensorSpec(o.name, s.dtype, s.shape)
            for o, s in zip(self._outputs, outputs, strict=True)
        ]
        self.signatures: Mapping[str, Signature] = {
            DEFAULT_SIGNATURE: Signature.derive(inputs, named, model.method)
        }

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        """See ``Session.run``."""
        if signature not in self.signatures:
            raise errors.NotFound(f"a fake has one signature, {DEFAULT_SIGNATURE}")
        model = self._model
        if missing := [i.name for i in model.inputs if i.name not in inputs]:
            raise errors.InvalidArgument(f"input '{missing[0]}' is missing")
        if model.delay_ms and _hit(model.delay_when, inputs):
            time.sleep(model.delay_ms / 1000)
        if (
            model.behaviour == "crash"
            and model.crash.at == "run"
            and _hit(model.crash.when, inputs)
        ):
            _crash(model.crash)
        if model.behaviour == "fail" and model.fail.at == "run" and _hit(model.fail.when, inputs):
            raise _ERRORS[model.fail.code](model.fail.message)
        answers = {
            o.name: _answer(o, inputs) for o in self._outputs if not outputs or o.name in outputs
        }
        try:
            return {name: answers[name] for name in outputs or answers}
        except KeyError as error:
            raise errors.InvalidArgument(f"the model has no output {error}") from None

    def close(self) -> None:
        """Nothing to give back."""


class RepeatingSession(FakeSession):
    """Gives as many responses as an input says. Thread-safe."""

    def stream(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Iterator[Tensors]:
        """See ``StreamingSession.stream``."""
        model = self._model
        failing = model.behaviour == "fail" and _hit(model.fail.when, inputs)
        quiet = FakeSession(model.model_copy(update={"behaviour": "echo"}))
        for _ in range(int(inputs[str(model.repeat)].ravel()[0])):
            yield quiet.run(inputs, signature, outputs)
        if failing:
            raise _ERRORS[model.fail.code](model.fail.message)


def _spec(tensor: Input, per_row: bool = False) -> TensorSpec:
    any_rows = (-1,) if per_row else None
    shape = any_rows if tensor.shape is None else tuple(tensor.shape)
    return TensorSpec(tensor.name, tensor.dtype, shape)


def _answer(output: Output, inputs: Tensors) -> Tensor:
    if output.source is not None:
        return np.array(inputs[output.source])
    rows = next((len(array) for array in inputs.values() if array.ndim), 1)
    shape = [rows if size == -1 else size for size in output.shape or [-1]]
    return np.full(shape, _element(output.value, output.dtype), dtype=NUMPY[output.dtype])


def _element(value: Any, dtype: str) -> Any:
    return str(value).encode() if dtype == "BYTES" else value


def _hit(trigger: Trigger | None, inputs: Tensors) -> bool:
    if trigger is None:
        return True
    array = inputs[trigger.input]
    wanted = str(trigger.value).encode() if array.dtype == object else trigger.value
    return bool((array == wanted).any())


def _crash(crash: Crash) -> NoReturn:
    if crash.how == "abort":
        os.abort()
    if crash.how == "segfault":
        ctypes.string_at(0)
    while crash.how == "hang":
        time.sleep(3600)
    os._exit(70)
