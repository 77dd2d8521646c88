"""Signatures and errors as plain values, and back; what comes back is not believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import Code, CrossfadeError, Internal, LoadFailed, MissingExtra
from crossfade.runtimes.core.model import Signature, TensorSpec

_CLASSES: Final[Mapping[str, type[CrossfadeError]]] = {
    kind.code.value: kind for kind in CrossfadeError.__subclasses__()
}
_MISSING: Final = "missing_extra"


def plain(signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """Signatures as JSON has them."""
    return {
        name: {
            "inputs": [_plain(spec) for spec in signature.inputs],
            "outputs": [_plain(spec) for spec in signature.outputs],
            "batched": signature.batched,
            "method": signature.method,
        }
        for name, signature in signatures.items()
    }


def read(values: Any) -> dict[str, Signature]:
    """Signatures of plain values.

    Raises:
        LoadFailed: they are none.
    """
    try:
        found = {
            str(name): Signature(
                tuple(map(_spec, one["inputs"])),
                tuple(map(_spec, one["outputs"])),
                bool(one["batched"]),
                str(one["method"]),
            )
            for name, one in values.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadFailed("the worker process described the model in no way known here") from error
    if not found:
        raise LoadFailed("the model has no signature")
    return found


def plain_error(error: CrossfadeError) -> dict[str, Any]:
    """An error as JSON has it."""
    values = {
        "code": error.code.value,
        "message": error.message,
        "retry_after_s": error.retry_after_s,
    }
    return values | {_MISSING: error.extra} if isinstance(error, MissingExtra) else values


def error_of(values: Any) -> CrossfadeError:
    """An error of plain values; of those that cannot be read, an ``Internal``."""
    try:
        kind = _CLASSES.get(values["code"], Internal)
        after_s = values.get("retry_after_s")
        return kind(
            str(values["message"]), retry_after_s=None if after_s is None else float(after_s)
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return Internal("internal error: the worker process failed in no way known here")


def load_error_of(values: Any) -> CrossfadeError:
    """What loading raised in the worker: ``LoadFailed``, or what says which extra is missing."""
    error = error_of(values)
    if isinstance(values, dict) and isinstance(values.get(_MISSING), str):
        missing = MissingExtra(values[_MISSING], "")
        missing.message = error.message
        return missing
    return error if error.code is not Code.INTERNAL else LoadFailed(error.message)


def _plain(spec: TensorSpec) -> list[Any]:
    return [spec.name, spec.dtype, None if spec.shape is None else list(spec.shape), spec.optional]


def _spec(values: Any) -> TensorSpec:
    name, dtype, shape, optional = values
    if dtype not in NUMPY:
        raise ValueError(dtype)
    sizes = None if shape is None else tuple(int(size) for size in shape)
    return TensorSpec(str(name), dtype, sizes, bool(optional))
