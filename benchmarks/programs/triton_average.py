"""The last step of the pair as Triton's ensemble: the weighted mean, in its Python backend."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # Triton brings it


class TritonPythonModel:
    """Takes FIRST and SECOND, gives ``scores``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the weights."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._weights = json.loads(parameters["weights"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Average each request's scores."""
        return [self._averaged(request) for request in requests]

    def _averaged(self, request: Any) -> Any:
        first, second = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("FIRST", "SECOND")
        )
        mean = np.float32(self._weights[0]) * first + np.float32(self._weights[1]) * second
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("scores", mean)])
