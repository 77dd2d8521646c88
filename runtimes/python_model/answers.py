"""What a model's own code returned, checked as nobody else will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import Internal
from crossfade.runtimes.core.model import Signature, Tensor, Tensors, TensorSpec


def checked(
    returned: object, signature: Signature, names: Sequence[str], inputs: Tensors
) -> dict[str, Tensor]:
    """Returns the outputs that are wanted, as arrays that are nobody else's.

    Args:
        returned: by the model's code.
        signature: what it said it gives.
        names: of the outputs wanted.
        inputs: what it got.

    Raises:
        Internal: it returned something else, and what.
    """
    if not isinstance(returned, Mapping):
        raise Internal(f"the model's code returned {type(returned).__name__}, not a dict of arrays")
    rows = next((given.shape[:1] for given in inputs.values()), ())
    specs = {spec.name: spec for spec in signature.outputs}
    found: dict[str, Tensor] = {}
    for name in names:
        if name not in returned:
            raise Internal(f"the model's code did not return the output '{name}'")
        array = _array(returned[name], specs[name])
        if signature.batched and array.shape[:1] != rows:
            sent = max(rows, default=0)
            raise Internal(
                f"the model's code returned {len(array)} rows of '{name}' for {sent} rows"
            )
        shared = any(np.may_share_memory(array, given) for given in inputs.values())
        found[name] = array if array.flags.writeable and not shared else array.copy()
    return found


def _array(value: object, spec: TensorSpec) -> Tensor:
    if not isinstance(value, np.ndarray):
        raise Internal(
            f"the model's code returned '{spec.name}' as {type(value).__name__}, not numpy.ndarray"
        )
    if value.dtype != NUMPY[spec.dtype]:
        raise Internal(
            f"the model's code returned '{spec.name}' as {value.dtype}; its signature says"
            f" {spec.dtype}"
        )
    wanted = spec.shape
    if wanted is not None and (
        len(wanted) != value.ndim
        or any(w not in (-1, size) for w, size in zip(wanted, value.shape, strict=True))
    ):
        raise Internal(
            f"the model's code returned '{spec.name}' with shape {list(value.shape)}; its"
            f" signature says {list(wanted)}"
        )
    if spec.dtype == "BYTES" and not all(isinstance(e, bytes) for e in value.ravel()):
        raise Internal(f"the model's code returned elements of '{spec.name}' that are not bytes")
    return value
