"""The runtime that MLServer loads: ONNX Runtime behind its `MLModel`."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from mlserver import MLModel  # type: ignore[import-not-found] # only in the peer's environment
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found] # as above
from mlserver.types import (  # type: ignore[import-not-found] # as above
    InferenceRequest,
    InferenceResponse,
)

from crossfade.benchmarks.onnx_session import open_session
from crossfade.benchmarks.session_settings import PARALLEL_RUNS

ON_THE_LOOP = frozenset({"addsub"})


class OnnxRuntime(MLModel):  # type: ignore[misc] # MLServer is not there when types are checked
    """One ONNX model.

    A heavy model runs on a pool of threads, a small one on the event loop, as in the KServe peer.
    """

    async def load(self) -> bool:
        """Open the session."""
        self._session = open_session(self.settings.parameters.uri)
        self._output_names = [tensor.name for tensor in self._session.get_outputs()]
        self._threads = None if self.name in ON_THE_LOOP else ThreadPoolExecutor(PARALLEL_RUNS)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run one request."""
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        if self._threads is None:
            arrays = self._session.run(None, feeds)
        else:
            loop = asyncio.get_running_loop()
            arrays = await loop.run_in_executor(self._threads, self._session.run, None, feeds)
        outputs = [
            NumpyCodec.encode_output(name, array)
            for name, array in zip(self._output_names, arrays, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
