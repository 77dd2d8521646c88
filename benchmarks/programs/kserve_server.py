"""KServe's model server with ONNX Runtime models, tuned to be fast in one process.

Against KServe's defaults: uvloop under gRPC too, and no log line per request. A heavy model runs on
a pool of threads, since ``predict`` on the event loop would let one run at a time; a small one runs
on the loop, where handing it to a thread costs more than it does::

    python -m crossfade.benchmarks.programs.kserve_server --grpc_port=P --http_port=P NAME=FILE...
"""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kserve  # type: ignore[import-not-found] # only in the peer's virtual environment
import uvloop  # type: ignore[import-not-found] # only in the peer's virtual environment

from crossfade.benchmarks.onnx_session import open_session
from crossfade.benchmarks.session_settings import PARALLEL_RUNS

ON_THE_LOOP = frozenset({"addsub"})


class OnnxModel(kserve.Model):  # type: ignore[misc] # KServe is not there when types are checked
    """One ONNX model."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._path = path
        self._threads = None if name in ON_THE_LOOP else ThreadPoolExecutor(PARALLEL_RUNS)

    def load(self) -> bool:
        """Open the session."""
        self._session = open_session(self._path)
        self._output_names = [tensor.name for tensor in self._session.get_outputs()]
        self.ready = True
        return True

    async def predict(
        self,
        payload: kserve.InferRequest,
        headers: dict[str, str] | None = None,
    ) -> kserve.InferResponse:
        """Run one request."""
        feeds = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        if self._threads is None:
            arrays = self._session.run(None, feeds)
        else:
            loop = asyncio.get_running_loop()
            arrays = await loop.run_in_executor(self._threads, self._session.run, None, feeds)
        outputs = [self._output(*pair) for pair in zip(self._output_names, arrays, strict=True)]
        return kserve.InferResponse(
            response_id=payload.id, model_name=self.name, infer_outputs=outputs
        )

    @staticmethod
    def _output(name: str, array: Any) -> kserve.InferOutput:
        datatype = {"int32": "INT32", "float32": "FP32"}[str(array.dtype)]
        output = kserve.InferOutput(name=name, shape=list(array.shape), datatype=datatype)
        output.set_data_from_numpy(array, binary_data=True)
        return output


def main() -> None:
    """Serve the models of the command line; KServe reads its own options from it."""
    uvloop.install()
    asyncio.set_event_loop(asyncio.new_event_loop())  # KServe asks for one, uvloop makes none
    server = kserve.ModelServer(enable_latency_logging=False)
    logging.getLogger("kserve").setLevel(logging.WARNING)
    models = []
    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            model = OnnxModel(*argument.split("=", 1))
            model.load()
            models.append(model)
    server.start(models)


if __name__ == "__main__":
    main()
