"""What can be made of what: a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A format to convert to.

    Attributes:
        platform: what runs the result.
        file: its name in the version's folder.
        quantised: it computes with 8-bit integers: calibrated on data, judged by its answers.
    """

    platform: str
    file: str
    quantised: bool = False


TARGETS: Final[Mapping[str, Target]] = {
    "onnx": Target("onnxruntime_onnx", "model.onnx"),
    "onnx-int8": Target("onnxruntime_onnx", "model.onnx", quantised=True),
    "tflite": Target("tflite", "model.tflite"),
    "tflite-int8": Target("tflite", "model.tflite", quantised=True),
    "tensorrt": Target("tensorrt_plan", "model.plan"),
}
# The converters to run, one after the other, by what the model is.
STEPS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "tensorflow_savedmodel": {
        "onnx": ("savedmodel_to_onnx",),
        "onnx-int8": ("savedmodel_to_onnx", "onnx_to_int8"),
        "tflite": ("savedmodel_to_tflite",),
        "tflite-int8": ("savedmodel_to_tflite",),
        "tensorrt": ("savedmodel_to_onnx", "onnx_to_tensorrt"),
    },
    "onnxruntime_onnx": {
        "onnx-int8": ("onnx_to_int8",),
        "tensorrt": ("onnx_to_tensorrt",),
    },
    "torch": {
        "onnx": ("torch_to_onnx",),
        "onnx-int8": ("torch_to_onnx", "onnx_to_int8"),
        "tensorrt": ("torch_to_onnx", "onnx_to_tensorrt"),
    },
}


def steps(platform: str, target: str) -> Sequence[str]:
    """The converters from a platform to a target.

    Raises:
        InvalidArgument: there is no way; the message lists those that exist.
    """
    ways = STEPS.get(platform, {})
    if target in ways:
        return ways[target]
    if ways:
        raise InvalidArgument(
            f"a model of platform '{platform}' cannot become {target}; it can become "
            + ", ".join(ways)
        )
    tflite = "; serve a TFLite model as it is, or export it as a SavedModel"
    raise InvalidArgument(
        f"models of platform '{platform}' are not converted; those of {', '.join(STEPS)} are"
        + (tflite if platform == "tflite" else "")
    )
