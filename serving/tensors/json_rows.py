"""JSON rows (``instances`` to ``predictions``) or columns (``inputs`` to ``outputs``).

TensorFlow Serving's REST format, which KServe's first protocol and Vertex AI have, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import InferResponse, Signature, TensorSpec
from crossfade.serving.tensors import cells, fit, names
from crossfade.serving.tensors.json_values import dumps, is_bytes, plain, to_raw
from crossfade.serving.tensors.raw import RawTensor

Columns = Mapping[str, Any]
# What the format is, as JSON Schema.
REQUEST: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "signature_name": {"type": ["string", "null"]},
        "instances": {"type": "array", "minItems": 1},
        "inputs": {},
    },
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
}
RESPONSE: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"predictions": {"type": "array"}, "outputs": {}},
    "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        parts: the inputs of one inference, or of one for each row where the model takes a single
            row.
        rows: how many, in the row format; ``None`` in the columnar one.
        narrow: the inputs were widened, so that the outputs are to be narrowed.
    """

    parts: Sequence[Sequence[RawTensor]]
    rows: int | None
    narrow: bool

    def encode(self, responses: Sequence[InferResponse]) -> bytes:
        """The JSON of the answers; raises as ``json_values.plain`` does, and InvalidArgument."""
        answers = [fit.narrow(r) if self.narrow else r for r in responses]
        outputs = dict(answers[0].outputs)
        if len(answers) > 1:
            outputs = {n: np.concatenate([a.outputs[n] for a in answers]) for n in outputs}
        if self.rows is None:
            values, odd = plain(outputs)
            only = next(iter(values.values())) if len(values) == 1 else values
            return dumps({"outputs": only}, odd)
        for name, array in outputs.items():
            if array.shape[:1] != (self.rows,):
                raise InvalidArgument(
                    f"Tensor name: {name} has inconsistent batch size:"
                    f" {array.shape[0] if array.ndim else 'none'} expecting: {self.rows};"
                    " send 'inputs' instead of 'instances'"
                )
        values, odd = plain(outputs)
        if len(values) == 1:
            (predictions,) = values.values()
        else:
            predictions = [{n: v[row] for n, v in values.items()} for row in range(self.rows)]
        return dumps({"predictions": predictions}, odd)


def ask(document: Mapping[str, Any], signature: Signature) -> Asked:
    """Makes inputs of a body.

    Raises:
        InvalidArgument: it has neither or both formats, or values that do not fit.
    """
    if ("instances" in document) == ("inputs" in document):
        raise InvalidArgument("the body must have either 'instances' or 'inputs', and not both")
    rows = None
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list) or not instances:
            raise InvalidArgument("'instances' must be a list that is not empty")
        rows = len(instances)
        columns = _rows(instances, signature)
    else:
        columns = _columns(document["inputs"], signature)
    names.check_inputs(signature, columns)
    parts = [columns]
    if rows and rows > 1 and _takes_one(signature):
        parts = [{n: values[at : at + 1] for n, values in columns.items()} for at in range(rows)]
    forms: dict[str, list[TensorSpec]] = {}
    for spec in signature.inputs:
        for form in (spec, spec.alternative) if spec.alternative else (spec,):
            forms.setdefault(form.name, []).append(form)
    specs = {name: _spec(forms[name], values) for name, values in columns.items()}
    table = [v for name, v in columns.items() if specs[name].cells and isinstance(v, list)]
    cells.check_number(sum(map(len, table)))
    made = [[_raw(specs[name], values) for name, values in part.items()] for part in parts]
    dimensions = fit.ends_in_one(signature)
    widened = [fit.widen(raws, dimensions) for raws in made]
    return Asked(made, rows, any(widened))


def _rows(instances: Sequence[Any], signature: Signature) -> Columns:
    first = instances[0]
    if not isinstance(first, dict) or is_bytes(first):
        return {_only(signature, "'instances' is a list of values"): instances}
    if any(spec.cells for spec in signature.inputs):
        return cells.columns(instances, signature)
    for instance in instances:
        if not isinstance(instance, dict) or instance.keys() != first.keys():
            raise InvalidArgument("'instances' must be objects with the same keys")
    return {name: [instance[name] for instance in instances] for name in first}


def _columns(inputs: Any, signature: Signature) -> Columns:
    if isinstance(inputs, dict) and not is_bytes(inputs):
        return inputs
    return {_only(signature, "'inputs' is a value"): inputs}


def _only(signature: Signature, what: str) -> str:
    """The input that is meant where none is named."""
    every = [spec.name for spec in signature.inputs if not spec.cells]
    needed = [spec.name for spec in signature.inputs if not spec.optional] or every
    if len(needed) != 1:
        column = next((spec.name for spec in signature.inputs if spec.cells), None)
        if column is not None:
            raise InvalidArgument(
                f'{what}: send objects with a value for each column, {{"{escape(column)}": …}}'
            )
        shown = ", ".join(escape(name) for name in every)
        raise InvalidArgument(f"{what}, but the signature has several inputs: {shown}")
    return needed[0]


def _spec(forms: Sequence[TensorSpec], values: Any) -> TensorSpec:
    """Of the forms that an input has the one for such values."""
    while isinstance(values, list) and values:
        values = values[0]
    number = isinstance(values, int | float)
    return next((form for form in forms if (form.dtype != "BYTES") == number), forms[0])


def _raw(spec: TensorSpec, values: Any) -> RawTensor:
    return cells.to_raw(spec, values) if spec.cells else to_raw(spec, values)


def _takes_one(signature: Signature) -> bool:
    """Whether all inputs are of exactly one row, as those of many TFLite files are."""
    return all(spec.shape and spec.shape[0] == 1 for spec in signature.inputs)
