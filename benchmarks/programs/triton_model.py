"""The model that Triton's Python backend loads: ONNX Runtime on a stacked batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found] # Triton brings it

from crossfade.benchmarks.onnx_session import open_session


class TritonPythonModel:
    """One instance of a model; Triton's dynamic batcher gives it several requests at once."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX file that the configuration names."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._session = open_session(parameters["onnx_file"]["string_value"])
        self._input_names = [tensor.name for tensor in self._session.get_inputs()]
        self._output_names = [tensor.name for tensor in self._session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Stack the requests along the batch axis, run once, and split the outputs."""
        columns = [
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self._input_names
        ]
        sizes = [len(array) for array in columns[0]]
        feeds = {
            name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            for name, arrays in zip(self._input_names, columns, strict=True)
        }
        outputs = self._session.run(None, feeds)
        responses, start = [], 0
        for size in sizes:
            tensors = [
                pb_utils.Tensor(name, output[start : start + size])
                for name, output in zip(self._output_names, outputs, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
            start += size
        return responses
