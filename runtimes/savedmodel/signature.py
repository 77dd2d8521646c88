"""Signatures of a SavedModel, bound to the tensors of its graph.

Shapes and dtypes are the graph's: what a SignatureDef declares can disagree with it, and the
graph is what runs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import name_of
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Signature, TensorSpec

_log = logging.getLogger(__name__)
_METHODS: Final = {
    "tensorflow/serving/classify": "classify",
    "tensorflow/serving/regress": "regress",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A signature and the graph's tensors behind its names.

    Attributes:
        inputs: tensors to feed, by input name.
        outputs: tensors to fetch, by output name.
        defaults: what is fed for an optional input that a request leaves out, by tensor.
    """

    signature: Signature
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    defaults: Mapping[Any, Any]


def bind(graph: Any, definitions: Mapping[str, Any], tf: Any) -> dict[str, Bound]:
    """Binds every signature that can be served, in the order of their names.

    Raises:
        LoadFailed: there is none.
    """
    bound: dict[str, Bound] = {}
    refused: list[str] = []
    for name in sorted(definitions):
        if name.startswith("__saved_model"):  # how TensorFlow keeps its initialiser
            continue
        try:
            bound[name] = _bind(graph, definitions[name], tf)
        except (KeyError, ValueError) as error:
            refused.append(f"'{name}' ({error})")
    if refused:
        _log.warning("signatures that are not served: %s", ", ".join(refused))
    if not bound:
        why = f": {', '.join(refused)}" if refused else "; export it with signatures="
        raise LoadFailed(f"the SavedModel has no signature that can be served{why}")
    return bound


def _bind(graph: Any, definition: Any, tf: Any) -> Bound:
    # Protobuf maps have no order, so that names give one that is the same in every process.
    inputs = {name: _tensor(graph, definition.inputs[name]) for name in sorted(definition.inputs)}
    outputs = {
        name: _tensor(graph, definition.outputs[name]) for name in sorted(definition.outputs)
    }
    # TensorFlow has had defaults since 2.17.
    declared = getattr(definition, "defaults", {})
    defaults = {inputs[name]: tf.make_ndarray(declared[name]) for name in declared}
    signature = Signature.derive(
        [_spec(name, tensor, name in declared) for name, tensor in inputs.items()],
        [_spec(name, tensor) for name, tensor in outputs.items()],
        _METHODS.get(definition.method_name, "predict"),
    )
    return Bound(signature, inputs, outputs, defaults)


def _tensor(graph: Any, info: Any) -> Any:
    if info.WhichOneof("encoding") != "name":
        raise ValueError("it has sparse or ragged tensors")
    return graph.get_tensor_by_name(info.name)


def _spec(name: str, tensor: Any, optional: bool = False) -> TensorSpec:
    kind = tensor.dtype.base_dtype
    try:
        dtype = "BYTES" if kind.name == "string" else name_of(np.dtype(kind.as_numpy_dtype))
    except (KeyError, TypeError):
        raise ValueError(f"'{name}' is {kind.name}") from None
    dims = tensor.shape
    shape = None if dims.rank is None else tuple(-1 if d is None else d for d in dims.as_list())
    return TensorSpec(name, dtype, shape, optional)
