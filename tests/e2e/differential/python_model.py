"""What Triton's Python backend runs for every model of the differential test."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb  # type: ignore[import-not-found] # Triton brings it


class TritonPythonModel:
    """Does what the model's ``behaviour`` says."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the configuration; a broken model ends here."""
        config = json.loads(args["model_config"])
        given = {key: entry["string_value"] for key, entry in config["parameters"].items()}
        self._behaviour, self._fails = given["behaviour"], given.get("fails")
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        if self._behaviour == "broken":
            raise ValueError("as told")

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Answers each request by itself."""
        if "repeat" in self._behaviour:
            for request in requests:
                self._repeat(request)
            return None
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        def of(name: str) -> Any:
            return pb.get_input_tensor_by_name(request, name)

        if self._behaviour == "fail":
            error = pb.TritonError("as told", getattr(pb.TritonError, self._fails))
            return pb.InferenceResponse(error=error)
        if self._behaviour == "addsub":
            a, b = (of(name).as_numpy() for name in ("INPUT0", "INPUT1"))
            found = {"OUTPUT0": a + b, "OUTPUT1": a - b}
        elif self._behaviour == "controls":
            parts = [of(name).as_numpy().astype(np.int64) for name in ("x", "start", "end", "id")]
            found = {"y": sum(parts)}
        else:
            pairs = zip(self._outputs, self._inputs, strict=True)
            return pb.InferenceResponse(
                [self._copy(target, of(source)) for target, source in pairs]
            )
        return pb.InferenceResponse([pb.Tensor(name, array) for name, array in found.items()])

    def _repeat(self, request: Any) -> None:
        """As many responses as ``n`` says, then an error if told so, then the end."""
        sender = request.get_response_sender()
        tensor = pb.get_input_tensor_by_name(request, "x")
        for _ in range(int(pb.get_input_tensor_by_name(request, "n").as_numpy()[0])):
            sender.send(pb.InferenceResponse([pb.Tensor("y", tensor.as_numpy())]))
        if "fail" in self._behaviour:
            error = pb.TritonError("as told", getattr(pb.TritonError, self._fails))
            sender.send(pb.InferenceResponse(error=error))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _copy(self, name: str, tensor: Any) -> Any:
        try:
            return pb.Tensor(name, tensor.as_numpy())
        except pb.TritonModelException:  # BF16, which numpy does not have
            return pb.Tensor.from_dlpack(name, tensor.to_dlpack())
