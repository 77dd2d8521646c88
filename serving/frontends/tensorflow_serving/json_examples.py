"""``:classify`` and ``:regress``: JSON objects to examples, results to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.serving.tensors.json_values import is_bytes, to_bytes
from crossfade.serving.wire import tf_framework as framework
from crossfade.serving.wire import tf_serving as wire


def to_input(document: Mapping[str, Any]) -> Any:
    """Makes an ``Input`` of a body's ``examples`` and ``context``.

    Raises:
        InvalidArgument: they are not what the protocol says.
    """
    examples = document.get("examples")
    if not isinstance(examples, list) or not examples:
        raise InvalidArgument("'examples' must be a list that is not empty")
    listed = wire.ExampleListWithContext(examples=[_example(one) for one in examples])
    if "context" in document:
        listed.context.CopyFrom(_example(document["context"]))
    return wire.Input(example_list_with_context=listed)


def _example(features: Any) -> Any:
    if not isinstance(features, dict):
        raise InvalidArgument("an example must be an object of features")
    example = framework.Example()
    for name, given in features.items():
        values = given if isinstance(given, list) else [given]
        feature = example.features.feature[name]
        kinds = set(map(type, values))
        if kinds == {int}:
            try:
                feature.int64_list.value.extend(values)
            except ValueError:
                raise _refused(name) from None
        elif kinds <= {int, float}:
            feature.float_list.value.extend(values)
        elif all(isinstance(value, str) or is_bytes(value) for value in values):
            feature.bytes_list.value.extend(to_bytes(name, value) for value in values)
        else:
            raise _refused(name)
    return example


def _refused(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"feature '{escape(name)}' must be a number, a string, or a list of either kind"
    )


def results(message: Any) -> list[Any]:
    """A ``ClassificationResult`` or ``RegressionResult`` as JSON values."""
    if message.DESCRIPTOR.name == "RegressionResult":
        return [_number(line.value) for line in message.regressions]
    return [
        [[found.label, _number(found.score)] for found in line.classes]
        for line in message.classifications
    ]


def _number(value: float) -> float:
    """The shortest double that is the same 32-bit float."""
    return float(str(np.float32(value)))
