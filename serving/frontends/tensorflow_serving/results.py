"""What a model answers, as classifications or regressions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import InferResponse, Signature, Tensor, TensorSpec
from crossfade.serving.wire import tf_serving as wire

_CLASSES, _SCORES, _VALUES = "classes", "scores", "outputs"


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """One of the two things that can be done with examples.

    Attributes:
        name: as a signature has it.
        noun: for messages.
        outputs: which outputs of a signature it needs; raises InvalidArgument.
        result: makes the message of an answer to N examples; raises InvalidArgument.
        field: of ``InferenceResult``, where it stands.
    """

    name: str
    noun: str
    outputs: Callable[[Signature], tuple[str, ...]]
    result: Callable[[InferResponse, tuple[str, ...], int], Any]
    field: str

    @property
    def api(self) -> str:
        """The method of the service that does it."""
        return self.name.capitalize()

    @property
    def full_name(self) -> str:
        """As TensorFlow Serving's clients write it."""
        return f"tensorflow/serving/{self.name}"

    def check(self, signature: Signature) -> None:
        """Raises InvalidArgument if the signature was declared for something else.

        Models of formats that declare nothing are ``predict``: their outputs decide.
        """
        if signature.method not in (self.name, "predict"):
            raise InvalidArgument(
                f"Expected {self.noun} signature method_name to be {self.full_name}."
                f" Was: tensorflow/serving/{signature.method}"
            )


def _class_outputs(signature: Signature) -> tuple[str, ...]:
    by_name = {spec.name: spec for spec in signature.outputs}
    found = tuple(name for name in (_CLASSES, _SCORES) if name in by_name)
    if not found:
        found = _only(signature, "classification", "'classes' or 'scores'")
    return found


def _value_outputs(signature: Signature) -> tuple[str, ...]:
    if any(spec.name == _VALUES for spec in signature.outputs):
        return (_VALUES,)
    return _only(signature, "regression", f"'{_VALUES}'")


def _only(signature: Signature, noun: str, wanted: str) -> tuple[str, ...]:
    """The one output, whatever its name: files of other formats have names of their own."""
    numeric = [spec for spec in signature.outputs if _is_numeric(spec)]
    if len(signature.outputs) != 1 or not numeric:
        raise InvalidArgument(f"Expected {noun} signature outputs to contain {wanted}")
    return (numeric[0].name,)


def _is_numeric(spec: TensorSpec) -> bool:
    return spec.dtype != "BYTES"


def _classification(response: InferResponse, names: tuple[str, ...], rows: int) -> Any:
    texts = scores = None
    for name in names:
        array = _matrix(name, response.outputs[name], rows)
        if (array.dtype == np.object_) is not (name == _CLASSES):
            raise InvalidArgument("Expected 'classes' to be strings and 'scores' to be numbers")
        if name == _CLASSES:
            texts = array
        else:
            scores = array.astype(np.float32)
    labels = response.model.labels.get(names[-1], ()) if texts is None else ()
    columns = {array.shape[1] for array in (texts, scores) if array is not None}
    if len(columns) > 1:
        raise InvalidArgument("Tensors 'classes' and 'scores' have different numbers of classes")
    (count,) = columns
    message = wire.ClassificationResult()
    for row in range(rows):
        line = message.classifications.add().classes
        for column in range(count):
            label = labels[column] if column < len(labels) else ""
            if texts is not None:
                label = texts[row, column].decode(errors="replace")
            line.add(label=label, score=0.0 if scores is None else float(scores[row, column]))
    return message


def _regression(response: InferResponse, names: tuple[str, ...], rows: int) -> Any:
    array = response.outputs[names[0]]
    if array.shape not in ((rows,), (rows, 1)):
        raise InvalidArgument(
            f"Expected output Tensor shape to be either [{rows}] or [{rows}, 1] but got"
            f" {list(array.shape)}"
        )
    message = wire.RegressionResult()
    for value in array.reshape(-1).astype(np.float32).tolist():
        message.regressions.add(value=value)
    return message


def _matrix(name: str, array: Tensor, rows: int) -> Tensor:
    if array.ndim != 2 or array.shape[0] != rows:
        raise InvalidArgument(
            f"Expected Tensor '{name}' of shape [{rows}, classes] but got {list(array.shape)}"
        )
    return array


CLASSIFY: Final = Method(
    "classify", "classification", _class_outputs, _classification, "classification_result"
)
REGRESS: Final = Method("regress", "regression", _value_outputs, _regression, "regression_result")
BY_NAME: Final = {method.full_name: method for method in (CLASSIFY, REGRESS)}
