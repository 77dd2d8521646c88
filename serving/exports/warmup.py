"""Recorded requests of a SavedModel as values of ``model.yaml``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE
from crossfade.serving.exports.record_file import records
from crossfade.serving.exports.saved_model import DTYPES
from crossfade.serving.wire import tf_serving as wire
from crossfade.serving.wire.fields import walk

FILE: Final = "assets.extra/tf_serving_warmup_requests"
MAX_REQUESTS: Final = 32
# `model.yaml` is read often and by people: a request larger than this is left out.
_MAX_REQUEST_BYTES: Final = 256 << 10
_MAX_ELEMENTS: Final = 16_384
# Fields of PredictionLog, and of the logs in it.
_CLASSIFY, _REGRESS, _PREDICT = 2, 3, 6
_REQUEST: Final = 1
# Where a TensorProto has the values of a type that is not in ``tensor_content``.
_FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("INT8", "INT16", "INT32", "UINT8", "UINT16"), "int_val"),
    **dict.fromkeys(("FP16", "BF16"), "half_val"),
    "FP32": "float_val",
    "FP64": "double_val",
    "INT64": "int64_val",
    "BOOL": "bool_val",
    "UINT32": "uint32_val",
    "UINT64": "uint64_val",
}


def read(folder: Path, signatures: Mapping[str, Any]) -> tuple[Sequence[dict[str, Any]], list[str]]:
    """Reads the recorded requests of a SavedModel's folder.

    Args:
        folder: the one with ``saved_model.pb``.
        signatures: as the SavedModel declares them; requests for others are left out.

    Returns:
        At most ``MAX_REQUESTS`` values of the key ``warmup``, and what was left out and why.
    """
    found: list[dict[str, Any]] = []
    left_out: dict[str, int] = {}
    damage: list[str] = []
    try:
        with (folder / FILE).open("rb") as file:
            for record in records(file, 64 << 20):
                if len(found) == MAX_REQUESTS:
                    damage.append(f"only the first {MAX_REQUESTS} warm-up requests are taken")
                    break
                try:
                    found.append(request(record, signatures))
                except InvalidArgument as error:
                    left_out[error.message] = left_out.get(error.message, 0) + 1
    except FileNotFoundError:
        return (), []
    except OSError as error:
        damage.append(f"the warm-up requests cannot be read: {error.strerror}")
    except CrossfadeError as error:
        damage.append(f"warm-up requests: {error.message}; {len(found)} before that are taken")
    reasons = [f"warm-up requests left out: {n}: {why}" for why, n in left_out.items()]
    return found, [*damage, *reasons]


def request(record: bytes, signatures: Mapping[str, Any]) -> dict[str, Any]:
    """One value of the key ``warmup`` of one ``PredictionLog``.

    Raises:
        InvalidArgument: it is none, is for another signature, or too large.
    """
    if len(record) > _MAX_REQUEST_BYTES:
        raise InvalidArgument(f"larger than {_MAX_REQUEST_BYTES} bytes")
    kind, message = _log(record)
    try:
        if kind == _PREDICT:
            asked: Any = wire.PredictRequest.FromString(message)
            inputs = {name: _value(asked.inputs[name]) for name in sorted(asked.inputs)}
        else:  # the messages of classify and regress have the same fields
            asked = wire.ClassificationRequest.FromString(message)
            inputs = {}
    except DecodeError:
        raise InvalidArgument("not a request") from None
    signature = asked.model_spec.signature_name or DEFAULT_SIGNATURE
    declared = signatures.get(signature)
    if declared is None:
        raise InvalidArgument(f"there is no signature '{signature}'")
    if kind != _PREDICT:
        inputs = _examples(asked, declared["inputs"])
    if inputs.keys() != declared["inputs"].keys():
        raise InvalidArgument(f"the inputs are not those of signature '{signature}'")
    return {
        "inputs": inputs,
        **({"signature": signature} if signature != DEFAULT_SIGNATURE else {}),
    }


def _log(record: bytes) -> tuple[int, bytes]:
    """Which kind of log, and the request in it."""
    try:
        for tag, _, start, end in walk(memoryview(record), 1000):
            kind = tag >> 3
            if tag & 7 != 2 or kind not in (_CLASSIFY, _REGRESS, _PREDICT):
                continue
            log = memoryview(record)[start:end]
            for inner, _, first, last in walk(log, 1000):
                if inner == _REQUEST << 3 | 2:
                    return kind, bytes(log[first:last])
    except (IndexError, CrossfadeError):
        raise InvalidArgument("not a log of a prediction") from None
    raise InvalidArgument("neither predict, classify nor regress")


def _examples(asked: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Examples go into the one input, each as its bytes."""
    if len(inputs) != 1 or asked.input.WhichOneof("kind") != "example_list":
        raise InvalidArgument("examples for a signature that takes none")
    (name,) = inputs
    return {
        name: [e.SerializeToString(deterministic=True) for e in asked.input.example_list.examples]
    }


def _value(tensor: Any) -> Any:
    """A TensorProto as nested lists; text is bytes."""
    dtype = DTYPES.get(tensor.dtype)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if dtype is None or tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise InvalidArgument("a tensor has no type or no shape")
    count = math.prod(shape)
    if count > _MAX_ELEMENTS:
        raise InvalidArgument(f"a tensor has more than {_MAX_ELEMENTS} elements")
    values = _flat(tensor, dtype)
    if len(values) == 1 < count:  # one value stands for all
        values = np.repeat(values, count)
    if len(values) != count:
        raise InvalidArgument("a tensor has another number of values than its shape")
    if dtype == "BF16":  # no number of Python's own
        values = values.astype(np.float32)
    return values.reshape(shape).tolist()


def _flat(tensor: Any, dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "BYTES":
        words = np.empty(len(tensor.string_val), dtype=np.object_)
        words[:] = list(tensor.string_val)
        return words
    kind = np.dtype(NUMPY[dtype])
    if tensor.tensor_content:
        if len(tensor.tensor_content) % kind.itemsize:
            raise InvalidArgument("a tensor has another number of bytes than its type")
        return np.frombuffer(tensor.tensor_content, kind)
    numbers = list(getattr(tensor, _FIELDS[dtype]))
    try:
        if _FIELDS[dtype] == "half_val":
            return np.array(numbers, np.uint16).view(kind)
        return np.array(numbers, kind)
    except OverflowError:
        raise InvalidArgument("a tensor has a value that its type does not have") from None
