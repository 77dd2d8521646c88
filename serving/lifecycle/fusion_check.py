"""Whether a fused graph gives what its members give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import CrossfadeError, FailedPrecondition
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferRequest,
    InferResponse,
    Model,
    Tensor,
    Tensors,
    TensorSpec,
)
from crossfade.serving.lifecycle.joint import Joint, Part
from crossfade.serving.lifecycle.warming import zeros
from crossfade.serving.lifecycle.warmup_inputs import given

# Of the largest number in an output. ONNX Runtime chooses other kernels where a value has two
# users instead of one, which rounds differently; 2e-7 was the most that was seen.
TOLERANCE: Final = 1e-4
_PIXEL: Final = 255.0


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """What came out.

    Attributes:
        samples: requests that both could answer.
        difference: the largest, as a share of the largest number in its output; 0 is identical.
    """

    samples: int
    difference: float


def check(joint: Joint, fused: Model) -> Checked:
    """Asks the members and the fused graph the same: zeros, random numbers, declared warm-ups.

    Raises:
        FailedPrecondition: the answers differ, or no request could be answered.
    """
    samples, worst = 0, 0.0
    for requests in _samples(joint.parts):
        alone = [
            part.origin.processed(part.origin.leaf).infer([request])[0]
            for part, request in zip(joint.parts, requests, strict=True)
        ]
        if any(isinstance(one, CrossfadeError) for one in alone):
            continue  # no input for these models
        together = [one[0] for one in joint.answer(fused, [[request] for request in requests])]
        samples += 1
        for part, ours, theirs in zip(joint.parts, alone, together, strict=True):
            if isinstance(theirs, CrossfadeError) or isinstance(ours, CrossfadeError):
                raise FailedPrecondition(f"the fused graph fails where '{part.name}' answers")
            worst = max(worst, _compare(part.name, ours, theirs))
    if not samples:
        raise FailedPrecondition(
            "the members refuse zeros and random numbers; declare a warm-up request"
        )
    return Checked(samples, worst)


def _compare(name: str, alone: InferResponse, together: InferResponse) -> float:
    worst = 0.0
    for output in alone.outputs.keys() & together.outputs.keys():
        difference = differs(alone.outputs[output], together.outputs[output])
        if difference > TOLERANCE:
            raise FailedPrecondition(
                f"the fused graph's '{output}' of '{name}' differs by {difference:.2g} of its"
                f" largest value, more than {TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst


def differs(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number (1 at least); infinite for others.

    Integers, strings and booleans are equal or not.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.dtype.kind in "biuO" or not one.size:
        return 0.0 if np.array_equal(one, other) else float("inf")
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], b[finite]
    if not a.size or np.array_equal(a, b):
        return 0.0
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))


def _samples(parts: Sequence[Part]) -> Iterator[list[InferRequest]]:
    """Requests, for each member with its names."""
    batched = all(part.signature.batched for part in parts)
    random = np.random.default_rng(0)
    yield _plain(parts, lambda spec: zeros(spec, 1), 1)
    for rows in (1, 3) if batched else (1,):
        yield _plain(parts, lambda spec, n=rows: _random(spec, n, False, random), rows)  # type: ignore[misc]
        yield _plain(parts, lambda spec, n=rows: _random(spec, n, True, random), rows)  # type: ignore[misc]
    for part in parts:
        yield from _declared(part, parts)


def _plain(
    parts: Sequence[Part], make: Callable[[TensorSpec], Tensor], rows: int
) -> list[InferRequest]:
    """A request of tensors as the sessions take them, past pictures."""
    made: dict[str, Tensor] = {}
    requests = []
    for part in parts:
        inputs = {}
        for spec in part.signature.inputs:
            name = part.inputs[spec.name]
            if name not in made:
                made[name] = make(spec)
            inputs[spec.name] = made[name]
        requests.append(InferRequest(inputs, DEFAULT_SIGNATURE, rows=rows))
    return requests


def _declared(part: Part, parts: Sequence[Part]) -> Iterator[list[InferRequest]]:
    """The warm-up requests that one member declares, for all."""
    specs = {spec.name: spec for spec in part.model.metadata.signatures[DEFAULT_SIGNATURE].inputs}
    for warmup in part.config.warmup:
        values: dict[str, Tensor] = {
            part.keys[name]: given(specs[name], value, part.origin.folder)
            for name, value in warmup.inputs.items()
            if name in specs and name in part.keys
        }
        inputs = [
            {name: values[key] for name, key in one.keys.items() if key in values} for one in parts
        ]
        if all(inputs):
            yield [InferRequest(one, DEFAULT_SIGNATURE, rows=_rows(one)) for one in inputs]


def _rows(inputs: Tensors) -> int:
    first = next(iter(inputs.values()))
    return len(first) if first.ndim else 1


def _random(spec: TensorSpec, rows: int, pixels: bool, random: np.random.Generator) -> Tensor:
    """About what networks are fed: normalised, or like pixels."""
    like = zeros(spec, rows)
    if spec.dtype == "BYTES":
        return like
    dtype = NUMPY[spec.dtype]
    if dtype.kind in "iub":
        most = {"BOOL": 1, "UINT8": 255}.get(spec.dtype, 9)
        return np.asarray(random.integers(0, most, like.shape, endpoint=True)).astype(dtype)
    drawn = random.random(like.shape) * _PIXEL if pixels else random.normal(size=like.shape)
    return np.asarray(drawn).astype(dtype)
