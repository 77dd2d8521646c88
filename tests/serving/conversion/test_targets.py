"""Which platforms become which, and what is said where none does."""

from __future__ import annotations

import pytest

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.conversion.targets import steps


@pytest.mark.parametrize(
    ("platform", "says"),
    [
        ("tflite", "; serve a TFLite model as it is, or export it as a SavedModel"),
        ("python", "models of platform 'python' are not converted; those of "),
    ],
)
def test_a_platform_that_is_not_converted(platform: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        steps(platform, "onnx")
    assert says in refused.value.message
    assert ("TFLite" in refused.value.message) == (platform == "tflite")
